// The convolutions from one channel (conv1) and to one (conv4), and their gradients.
//
// Nothing but conv4's forward pass sums over channels, so that a thread has one channel to itself, its nine
// weights in registers, and walks over the pixels of a tile with those of the other LANES.

template <int C> struct Lanes {
    static constexpr int THREADS = C == C1 ? 128 : 256, COUNT = THREADS / C;
};

// Sums of a tile's lanes, added up in order: VALUES each for C channels, to `to` (VALUES, C).
template <int C, int VALUES, typename Real>
__device__ void sum_lanes(const Real* mine, Real (*shared)[VALUES * C], Real* to) {
    const int t = threadIdx.x;
    __syncthreads();
#pragma unroll
    for (int v = 0; v < VALUES; v++) shared[t / C][v * C + t % C] = mine[v];
    __syncthreads();
    for (int i = t; i < VALUES * C; i += Lanes<C>::THREADS) {
        Real all = 0;
        for (int lane = 0; lane < Lanes<C>::COUNT; lane++) all += shared[lane][i];
        to[i] = all;
    }
}

// conv1: x (B, H, W) -> a (B, H, W, 16), and each tile's sums as conv3x3 has them.
extern "C" __global__ void __launch_bounds__(Lanes<C1>::THREADS)
    conv1(const float* x, const float* packed, float* a, double* sums, int height, int width) {
    __shared__ float image[TILE_H + 2][TILE_W + 2];
    __shared__ double lanes[Lanes<C1>::COUNT][2 * C1];
    const Tile tile = tile_of(blockIdx.x, height, width);
    const int c = threadIdx.x % C1;
    load_image(x, tile, height, width, image);
    float w[9];
#pragma unroll
    for (int k = 0; k < 9; k++) w[k] = packed[P1 + k * C1 + c];
    __syncthreads();
    double total[2] = {0.0, 0.0};
    for (int p = threadIdx.x / C1; p < TILE_H * TILE_W; p += Lanes<C1>::COUNT) {
        int y = p / TILE_W, q = p % TILE_W, row = tile.top + y, column = tile.left + q;
        if (row >= height || column >= width) continue;
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < 9; k++) sum = fmaf(image[y + k / 3][q + k % 3], w[k], sum);
        a[(((long long)tile.image * height + row) * width + column) * C1 + c] = sum;
        total[0] += sum;
        total[1] += (double)sum * sum;
    }
    if (sums == nullptr) return;
    sum_lanes<C1, 2>(total, lanes, sums + (long long)blockIdx.x * 2 * C1);
}

// conv4: relu(a) (B, H, W, 64) -> y (B, H, W), the sigmoid taken.
extern "C" __global__ void __launch_bounds__(128)
    conv4(const float* a, const float* norm, const float* packed, const float* parameters, float* y_out,
          int height, int width) {
    __shared__ float in[CHUNK][TILE_H + 2][TILE_W + 2];
    __shared__ float w[9 * C3];
    const Tile tile = tile_of(blockIdx.x, height, width);
    const int t = threadIdx.x, channel = t % CHUNK;
    const int y = t / TILE_W, x = t % TILE_W;  // of the last threads: none
    for (int i = t; i < 9 * C3; i += 128) w[i] = packed[P4 + i];
    float sum[3] = {0.0f, 0.0f, 0.0f};
    for (int chunk = 0; chunk < C3; chunk += CHUNK) {
        __syncthreads();
        float c0, c1, c2;
        coefficients_of<ACTIVATION>(norm, C3, chunk + channel, c0, c1, c2);
        for (int i = t / CHUNK; i < (TILE_H + 2) * (TILE_W + 2); i += 128 / CHUNK) {
            int ty = i / (TILE_W + 2), tx = i % (TILE_W + 2), row = tile.top + ty - 1, column = tile.left + tx - 1;
            bool inside = row >= 0 && row < height && column >= 0 && column < width;
            long long at = (((long long)tile.image * height + row) * width + column) * C3 + chunk + channel;
            in[channel][ty][tx] = inside ? value<ACTIVATION>(a, nullptr, at, c0, c1, 0.0f) : 0.0f;
        }
        __syncthreads();
        if (y >= TILE_H) continue;
#pragma unroll
        for (int ch = 0; ch < CHUNK; ch++)
#pragma unroll
            for (int ky = 0; ky < 3; ky++)
#pragma unroll
                for (int kx = 0; kx < 3; kx++)
                    sum[kx] = fmaf(in[ch][y + ky][x + kx], w[(ky * 3 + kx) * C3 + chunk + ch], sum[kx]);
    }
    const int row = tile.top + y, column = tile.left + x;
    if (y >= TILE_H || row >= height || column >= width) return;
    float z = sum[0] + sum[1] + sum[2] + parameters[BIAS];
    // By tanh, as Chainer's sigmoid.
    y_out[((long long)tile.image * height + row) * width + column] = tanhf(z * 0.5f) * 0.5f + 0.5f;
}

// The gradient that conv4 hands to the ReLU before it: gz spread by conv4's weights w, taps in reverse order.
__device__ inline float spread(float (*gz)[TILE_W + 2], int y, int x, const float* w) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < 9; k++) sum = fmaf(gz[y + 2 - k / 3][x + 2 - k % 3], w[k], sum);
    return sum;
}

// conv4 backward: from gz (B, H, W), each tile's share of the gradient of the weights, (blocks, 9, 64), and sums
// as conv3x3 has them backward.
extern "C" __global__ void __launch_bounds__(Lanes<C3>::THREADS)
    conv4_weights(const float* gz, const float* a, const float* norm, const float* packed, float* shares,
                  double* sums, int height, int width) {
    __shared__ float image[TILE_H + 2][TILE_W + 2];
    __shared__ float share_lanes[Lanes<C3>::COUNT][9 * C3];
    __shared__ double lanes[Lanes<C3>::COUNT][2 * C3];
    const Tile tile = tile_of(blockIdx.x, height, width);
    const int c = threadIdx.x % C3;
    load_image(gz, tile, height, width, image);
    float w[9], share[9];
#pragma unroll
    for (int k = 0; k < 9; k++) {
        w[k] = packed[P4 + k * C3 + c];
        share[k] = 0.0f;
    }
    const float scale = norm[SCALE * C3 + c], shift = norm[SHIFT * C3 + c], mean = norm[MEAN * C3 + c];
    __syncthreads();
    double total[2] = {0.0, 0.0};
    for (int p = threadIdx.x / C3; p < TILE_H * TILE_W; p += Lanes<C3>::COUNT) {
        int y = p / TILE_W, q = p % TILE_W, row = tile.top + y, column = tile.left + q;
        if (row >= height || column >= width) continue;
        float pre = a[(((long long)tile.image * height + row) * width + column) * C3 + c];
        float h = relu_input(pre, scale, shift);
        if (!(h > 0.0f)) continue;
        float g = spread(image, y, q, w);
#pragma unroll
        for (int k = 0; k < 9; k++) share[k] = fmaf(image[y + 2 - k / 3][q + 2 - k % 3], h, share[k]);
        total[0] += g;
        total[1] += (double)g * (pre - mean);
    }
    sum_lanes<C3, 9>(share, share_lanes, shares + (long long)blockIdx.x * 9 * C3);
    sum_lanes<C3, 2>(total, lanes, sums + (long long)blockIdx.x * 2 * C3);
}

// The gradient of conv3's output, d (B, H, W, 64), from gz through conv4, the ReLU and bn3.
extern "C" __global__ void __launch_bounds__(Lanes<C3>::THREADS)
    bn3_gradient(const float* gz, const float* a, const float* norm, const float* packed, float* d, int height,
                 int width) {
    __shared__ float image[TILE_H + 2][TILE_W + 2];
    const Tile tile = tile_of(blockIdx.x, height, width);
    const int c = threadIdx.x % C3;
    load_image(gz, tile, height, width, image);
    float w[9], by_g, by_a, constant;
#pragma unroll
    for (int k = 0; k < 9; k++) w[k] = packed[P4 + k * C3 + c];
    coefficients_of<GRADIENT>(norm, C3, c, by_g, by_a, constant);
    const float scale = norm[SCALE * C3 + c], shift = norm[SHIFT * C3 + c];
    __syncthreads();
    for (int p = threadIdx.x / C3; p < TILE_H * TILE_W; p += Lanes<C3>::COUNT) {
        int y = p / TILE_W, q = p % TILE_W, row = tile.top + y, column = tile.left + q;
        if (row >= height || column >= width) continue;
        long long at = (((long long)tile.image * height + row) * width + column) * C3 + c;
        float g = relu_input(a[at], scale, shift) > 0.0f ? spread(image, y, q, w) : 0.0f;
        d[at] = fmaf(by_g, g, fmaf(by_a, a[at], constant));
    }
}

// conv1 backward: each tile's share of the gradient of the weights, (blocks, 9, 16), from g and a as
// `value<GRADIENT>` reads them.
extern "C" __global__ void __launch_bounds__(Lanes<C1>::THREADS)
    conv1_weights(const float* x, const float* a, const float* g, const float* norm, float* shares, int height,
                  int width) {
    __shared__ float image[TILE_H + 2][TILE_W + 2];
    __shared__ float share_lanes[Lanes<C1>::COUNT][9 * C1];
    const Tile tile = tile_of(blockIdx.x, height, width);
    const int c = threadIdx.x % C1;
    load_image(x, tile, height, width, image);
    float by_g, by_a, constant, share[9];
    coefficients_of<GRADIENT>(norm, C1, c, by_g, by_a, constant);
#pragma unroll
    for (int k = 0; k < 9; k++) share[k] = 0.0f;
    __syncthreads();
    for (int p = threadIdx.x / C1; p < TILE_H * TILE_W; p += Lanes<C1>::COUNT) {
        int y = p / TILE_W, q = p % TILE_W, row = tile.top + y, column = tile.left + q;
        if (row >= height || column >= width) continue;
        long long at = (((long long)tile.image * height + row) * width + column) * C1 + c;
        float d = value<GRADIENT>(a, g, at, by_g, by_a, constant);
#pragma unroll
        for (int k = 0; k < 9; k++) share[k] = fmaf(image[y + k / 3][q + k % 3], d, share[k]);
    }
    sum_lanes<C1, 9>(share, share_lanes, shares + (long long)blockIdx.x * 9 * C1);
}
