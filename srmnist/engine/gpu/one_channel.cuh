// The convolutions from one channel (conv1) and to one (conv4), and their gradients.
//
// Except in conv4's forward pass, a thread has one channel, with its nine weights in registers, and every
// COUNT-th pixel of a tile.

using In = const float* __restrict__;
using Out = float* __restrict__;

template <int C> struct Lanes {
    static constexpr int SIZE = C == C1 ? THREADS : WIDE, COUNT = SIZE / C;
};

// Call `use(row, column, at, read(row, column, at))` for each of the thread's pixels inside the image; `at`
// counts from the tile's first value. Seven are read before the first is used, so the reads overlap.
template <int C, class Read, class Use>
__device__ inline void each_pixel(Tile tile, Read read, Use use) {
    constexpr int AT_ONCE = 7;
    for (int p = threadIdx.x / C; p < TILE_H * TILE_W; p += AT_ONCE * Lanes<C>::COUNT) {
        float values[AT_ONCE];
        bool inside[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int pixel = p + i * Lanes<C>::COUNT, row = pixel / TILE_W, column = pixel % TILE_W;
            inside[i] = row < TILE_H && tile.has(row, column);
            values[i] = inside[i] ? read(row, column, (row * tile.width + column) * C) : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int pixel = p + i * Lanes<C>::COUNT, row = pixel / TILE_W, column = pixel % TILE_W;
            if (inside[i]) use(row, column, (row * tile.width + column) * C, values[i]);
        }
    }
}

// Sums of a tile's lanes, added up in order: VALUES each for C channels, to `to` (VALUES, C).
template <int C, int VALUES, typename Real>
__device__ void sum_lanes(const Real* mine, Real (*shared)[VALUES * C], Real* to) {
    const int t = threadIdx.x;
    __syncthreads();
#pragma unroll
    for (int v = 0; v < VALUES; v++) shared[t / C][v * C + t % C] = mine[v];
    __syncthreads();
    for (int i = t; i < VALUES * C; i += Lanes<C>::SIZE) {
        Real all = 0;
        for (int lane = 0; lane < Lanes<C>::COUNT; lane++) all += shared[lane][i];
        to[i] = all;
    }
}

// A channel's nine weights, from packed ones.
template <int C>
__device__ inline void load_weights(const float* packed, float* w) {
#pragma unroll
    for (int k = 0; k < 9; k++) w[k] = packed[k * C + threadIdx.x % C];
}

// conv1: x (B, H, W) -> a (B, H, W, 16), and each tile's sums as conv3x3 has them.
extern "C" __global__ void __launch_bounds__(Lanes<C1>::SIZE)
    conv1(In x, In packed, Out a, double* sums, int height, int width) {
    __shared__ float image[EDGED_H][EDGED_W];
    __shared__ double lanes[Lanes<C1>::COUNT][2 * C1];
    const Tile tile = tile_of(blockIdx.x, TILE_H, height, width);
    float w[9];
    load_image(x, tile, image);
    load_weights<C1>(packed + P1, w);
    __syncthreads();
    float* to = a + tile.first() * C1 + threadIdx.x % C1;
    Moments moments;
    auto convolve = [&](int row, int column, int) {
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < 9; k++) sum = fmaf(image[row + k / 3][column + k % 3], w[k], sum);
        return sum;
    };
    each_pixel<C1>(tile, convolve, [&](int, int, int at, float sum) {
        to[at] = sum;
        moments.add(sum);
    });
    if (sums == nullptr) return;
    const double total[2] = {moments.total(), moments.total_of_squares()};
    sum_lanes<C1, 2>(total, lanes, sums + (long long)blockIdx.x * 2 * C1);
}

// conv4: relu(a) (B, H, W, 64) -> y (B, H, W), after the sigmoid. A thread has a column of a tile, and every
// PARTS-th channel; then the parts are added up.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
    conv4(In a, In norm, In packed, In parameters, Out y, int height, int width) {
    constexpr int PARTS = THREADS / TILE_W;
    __shared__ float in[CHUNK][EDGED_H][EDGED_W];
    __shared__ float w[9 * C3];
    __shared__ float parts[PARTS][TILE_H * TILE_W];
    const Tile tile = tile_of(blockIdx.x, TILE_H, height, width);
    const int part = threadIdx.x / TILE_W, column = threadIdx.x % TILE_W;  // the last threads have no part
    for (int i = threadIdx.x; i < 9 * C3; i += THREADS) w[i] = packed[P4 + i];
    float sum[TILE_H] = {};
    EdgedTile<ACTIVATION, C3> edged(tile);
    for (int chunk = 0; chunk < C3; chunk += CHUNK) {
        edged.read(a, nullptr, chunk, 0);
        __syncthreads();
        edged.finish(a, nullptr, norm, chunk, in);
        __syncthreads();
        if (part >= PARTS) continue;
#pragma unroll
        for (int ch = part; ch < CHUNK; ch += PARTS) {
            float taps[9];
#pragma unroll
            for (int k = 0; k < 9; k++) taps[k] = w[k * C3 + chunk + ch];
#pragma unroll
            for (int row = 0; row < EDGED_H; row++)
#pragma unroll
                for (int kx = 0; kx < 3; kx++) {
                    const float value = in[ch][row][column + kx];
#pragma unroll
                    for (int ky = 0; ky < 3; ky++)
                        if (row - ky >= 0 && row - ky < TILE_H)
                            sum[row - ky] = fmaf(value, taps[ky * 3 + kx], sum[row - ky]);
                }
        }
    }
#pragma unroll
    for (int row = 0; row < TILE_H; row++)
        if (part < PARTS) parts[part][row * TILE_W + column] = sum[row];
    __syncthreads();
    for (int i = threadIdx.x; i < TILE_H * TILE_W; i += THREADS) {
        if (!tile.has(i / TILE_W, i % TILE_W)) continue;
        float z = parameters[BIAS];
        for (int p = 0; p < PARTS; p++) z += parts[p][i];
        // By tanh, as Chainer's sigmoid.
        y[tile.first() + i / TILE_W * width + i % TILE_W] = tanhf(z * 0.5f) * 0.5f + 0.5f;
    }
}

// The gradient that conv4 hands to the ReLU before it: gz spread by conv4's weights w, taps in reverse order.
__device__ inline float spread(float (*gz)[EDGED_W], int row, int column, const float* w) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < 9; k++) sum = fmaf(gz[row + 2 - k / 3][column + 2 - k % 3], w[k], sum);
    return sum;
}

// conv4 backward: from gz (B, H, W), each tile's partial gradient of the weights, (blocks, 9, 64), and sums
// as conv3x3 has them backward.
extern "C" __global__ void __launch_bounds__(Lanes<C3>::SIZE)
    conv4_weights(In gz, In a, In norm, In packed, Out partials, double* sums, int height, int width) {
    __shared__ float image[EDGED_H][EDGED_W];
    __shared__ float lanes[Lanes<C3>::COUNT][9 * C3];
    __shared__ double sum_of_lanes[Lanes<C3>::COUNT][2 * C3];
    const Tile tile = tile_of(blockIdx.x, TILE_H, height, width);
    const int c = threadIdx.x % C3;
    float w[9], partial[9] = {};
    load_image(gz, tile, image);
    load_weights<C3>(packed + P4, w);
    const float scale = norm[SCALE * C3 + c], shift = norm[SHIFT * C3 + c], mean = norm[MEAN * C3 + c];
    __syncthreads();
    const float* from = a + tile.first() * C3 + c;
    float total = 0.0f, product = 0.0f;
    auto read = [&](int, int, int at) { return from[at]; };
    each_pixel<C3>(tile, read, [&](int row, int column, int, float pre) {
        float h = relu(fmaf(pre, scale, shift));
        float g = h > 0.0f ? spread(image, row, column, w) : 0.0f;
#pragma unroll
        for (int k = 0; k < 9; k++)
            partial[k] = fmaf(image[row + 2 - k / 3][column + 2 - k % 3], h, partial[k]);
        total += g;
        product = fmaf(g, pre - mean, product);
    });
    const double both[2] = {total, product};
    sum_lanes<C3, 9>(partial, lanes, partials + (long long)blockIdx.x * 9 * C3);
    sum_lanes<C3, 2>(both, sum_of_lanes, sums + (long long)blockIdx.x * 2 * C3);
}

// The gradient of conv3's output, d (B, H, W, 64), from gz through conv4, the ReLU and bn3.
extern "C" __global__ void __launch_bounds__(Lanes<C3>::SIZE)
    bn3_gradient(In gz, In a, In norm, In packed, Out d, int height, int width) {
    __shared__ float image[EDGED_H][EDGED_W];
    const Tile tile = tile_of(blockIdx.x, TILE_H, height, width);
    const int c = threadIdx.x % C3;
    float w[9];
    load_image(gz, tile, image);
    load_weights<C3>(packed + P4, w);
    const Input<GRADIENT, 1> input(norm, C3, c);
    const float scale = norm[SCALE * C3 + c], shift = norm[SHIFT * C3 + c];
    __syncthreads();
    const float* from = a + tile.first() * C3 + c;
    float* to = d + tile.first() * C3 + c;
    auto read = [&](int, int, int at) { return from[at]; };
    each_pixel<C3>(tile, read, [&](int row, int column, int at, float pre) {
        float g = fmaf(pre, scale, shift) > 0.0f ? spread(image, row, column, w) : 0.0f;
        to[at] = input.value(0, pre, g);
    });
}

// conv1 backward: each tile's partial gradient of the weights, (blocks, 9, 16), from g and a as
// `Input<GRADIENT>` reads them.
extern "C" __global__ void __launch_bounds__(Lanes<C1>::SIZE)
    conv1_weights(In x, In a, In g, In norm, Out partials, int height, int width) {
    __shared__ float image[EDGED_H][EDGED_W];
    __shared__ float lanes[Lanes<C1>::COUNT][9 * C1];
    const Tile tile = tile_of(blockIdx.x, TILE_H, height, width);
    const int c = threadIdx.x % C1;
    const Input<GRADIENT, 1> input(norm, C1, c);
    float partial[9] = {};
    load_image(x, tile, image);
    __syncthreads();
    const float *from_a = a + tile.first() * C1 + c, *from_g = g + tile.first() * C1 + c;
    auto read = [&](int, int, int at) { return input.value(0, from_a[at], from_g[at]); };
    each_pixel<C1>(tile, read, [&](int row, int column, int, float d) {
#pragma unroll
        for (int k = 0; k < 9; k++) partial[k] = fmaf(image[row + k / 3][column + k % 3], d, partial[k]);
    });
    sum_lanes<C1, 9>(partial, lanes, partials + (long long)blockIdx.x * 9 * C1);
}
