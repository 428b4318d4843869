// 3x3 convolutions of many channels into many: forward, and the gradients of input and of weights.

// How a thread's OWN channels out of ALL lie: runs of `WIDTH`, `STRIDE` apart, so that the threads of a warp read
// neighbouring vectors.
template <int ALL, int OWN>
struct Share {
    static constexpr int WIDTH = OWN < 4 ? OWN : 4, THREADS = ALL / OWN, STRIDE = WIDTH * THREADS;
    __device__ static int channel(int thread, int own) {
        return own / WIDTH * STRIDE + thread * WIDTH + own % WIDTH;
    }
    __device__ static void load(const float* row, int thread, float* to) {
#pragma unroll
        for (int run = 0; run < OWN / WIDTH; run++)
            Vector<WIDTH>::load(row + run * STRIDE + thread * WIDTH, to + run * WIDTH);
    }
    __device__ static void store(const float* from, int thread, float* row) {
#pragma unroll
        for (int run = 0; run < OWN / WIDTH; run++)
            Vector<WIDTH>::store(from + run * WIDTH, row + run * STRIDE + thread * WIDTH);
    }
};

// A convolution from CI channels to CO, in tiles; a thread computes PIXELS x OWN outputs.
//
// Its input is a (and g) read as `value<KIND>` says, with the coefficients `norm_in`; `weights` are packed.
// Forward, out is the convolution, and sums (blocks, 2, CO) get each tile's sum and sum of squares, unless
// they are null. Backward, the convolution is the gradient behind a ReLU of `before` with `norm_out`: out is
// the gradient before it, g, and sums get those of g and of g * (before - mean).
template <int CI, int CO, int OWN, int KIND, bool BACKWARD>
__device__ void conv3x3(const float* a, const float* g, const float* norm_in, const float* weights,
                        const float* before, const float* norm_out, float* out, double* sums,
                        int height, int width) {
    using Channels = Share<CO, OWN>;
    constexpr int THREADS = Channels::THREADS * GROUPS, AREA = (TILE_H + 2) * (TILE_W + 2);
    __shared__ union {
        struct {
            float4 aligned[CHUNK * 9 * CO / 4];
            float tile[CHUNK][TILE_H + 2][TILE_W + 2];
        } in;
        double sums[GROUPS][2 * CO];
    } shared;
    const int t = threadIdx.x, mine = t % Channels::THREADS, group = t / Channels::THREADS;
    const int row = group / (TILE_W / PIXELS), first = group % (TILE_W / PIXELS) * PIXELS;
    const Tile tile = tile_of(blockIdx.x, height, width);

    float sum[PIXELS][OWN];
#pragma unroll
    for (int p = 0; p < PIXELS; p++)
#pragma unroll
        for (int c = 0; c < OWN; c++) sum[p][c] = 0.0f;

    for (int chunk = 0; chunk < CI; chunk += CHUNK) {
        __syncthreads();
        const float4* from = (const float4*)(weights + chunk * 9 * CO);
        for (int i = t; i < CHUNK * 9 * CO / 4; i += THREADS) shared.in.aligned[i] = from[i];
        // THREADS is a multiple of CHUNK: a thread fills in one channel.
        const int channel = t % CHUNK;
        float c0 = 0.0f, c1 = 0.0f, c2 = 0.0f;
        coefficients_of<KIND>(norm_in, CI, chunk + channel, c0, c1, c2);
        for (int i = t / CHUNK; i < AREA; i += THREADS / CHUNK) {
            int ty = i / (TILE_W + 2), tx = i % (TILE_W + 2), y = tile.top + ty - 1, x = tile.left + tx - 1;
            bool inside = y >= 0 && y < height && x >= 0 && x < width;
            long long at = (((long long)tile.image * height + y) * width + x) * CI + chunk + channel;
            shared.in.tile[channel][ty][tx] = inside ? value<KIND>(a, g, at, c0, c1, c2) : 0.0f;
        }
        __syncthreads();
        const float* taps = (const float*)shared.in.aligned;
#pragma unroll 1
        for (int ch = 0; ch < CHUNK; ch++) {
#pragma unroll
            for (int ky = 0; ky < 3; ky++) {
                float in[PIXELS + 2], w[OWN];
#pragma unroll
                for (int p = 0; p < PIXELS + 2; p++) in[p] = shared.in.tile[ch][row + ky][first + p];
#pragma unroll
                for (int kx = 0; kx < 3; kx++) {
                    Channels::load(taps + ((ch * 3 + ky) * 3 + kx) * CO, mine, w);
#pragma unroll
                    for (int p = 0; p < PIXELS; p++)
#pragma unroll
                        for (int c = 0; c < OWN; c++) sum[p][c] = fmaf(in[p + kx], w[c], sum[p][c]);
                }
            }
        }
    }

    const int y = tile.top + row, x = tile.left + first;
    const long long at = (((long long)tile.image * height + y) * width + x) * CO;
    const int count = y < height ? min(PIXELS, width - x) : 0;
    double total[OWN], product[OWN];
#pragma unroll
    for (int c = 0; c < OWN; c++) total[c] = product[c] = 0.0;
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        if (p < count) {
            float pre[OWN];
            if (BACKWARD) Channels::load(before + at + p * CO, mine, pre);
#pragma unroll
            for (int c = 0; c < OWN; c++) {
                const int channel = Channels::channel(mine, c);
                if (BACKWARD) {
                    float n = relu_input(pre[c], norm_out[SCALE * CO + channel], norm_out[SHIFT * CO + channel]);
                    if (!(n > 0.0f)) sum[p][c] = 0.0f;
                    product[c] += (double)sum[p][c] * (pre[c] - norm_out[MEAN * CO + channel]);
                } else {
                    product[c] += (double)sum[p][c] * sum[p][c];
                }
                total[c] += sum[p][c];
            }
            Channels::store(sum[p], mine, out + at + p * CO);
        }
    }
    if (sums == nullptr) return;
    __syncthreads();
#pragma unroll
    for (int c = 0; c < OWN; c++) {
        shared.sums[group][Channels::channel(mine, c)] = total[c];
        shared.sums[group][CO + Channels::channel(mine, c)] = product[c];
    }
    __syncthreads();
    for (int i = t; i < 2 * CO; i += THREADS) {
        double all = 0.0;
        for (int k = 0; k < GROUPS; k++) all += shared.sums[k][i];
        sums[(long long)blockIdx.x * 2 * CO + i] = all;
    }
}

// The gradient of the weights of a convolution from CI channels to CO: each block's share of it, from a band
// of ROWS rows of TILE_W columns of one image, written to `shares` (blocks, CI, 9, CO).
//
// The convolution's input is relu(a) with norm_a; the gradient of its output is `value<KIND>` of b and g. A
// thread sums for one input channel, nine taps and OWN output channels, while it walks along the rows.
template <int CI, int CO, int OWN, int ROWS, int KIND>
__device__ void weight_gradient(const float* a, const float* norm_a, const float* b, const float* g,
                                const float* norm_b, float* shares, int height, int width) {
    using Channels = Share<CO, OWN>;
    constexpr int THREADS = CI * Channels::THREADS;
    __shared__ float4 aligned[TILE_W * CO / 4];
    __shared__ float rows[3][TILE_W + 2][CI];
    float* gradient = (float*)aligned;
    const int t = threadIdx.x, mine = t % Channels::THREADS, input = t / Channels::THREADS;
    const int across = (width + TILE_W - 1) / TILE_W, down = (height + ROWS - 1) / ROWS;
    const int image = blockIdx.x / (across * down), band = blockIdx.x % (across * down);
    const int top = band / across * ROWS, left = band % across * TILE_W;
    const int bottom = min(top + ROWS, height);

    // THREADS is a multiple of CI and of CO: a thread fills in one channel of each.
    float a0 = 0.0f, a1 = 0.0f, a2 = 0.0f, b0 = 0.0f, b1 = 0.0f, b2 = 0.0f;
    coefficients_of<ACTIVATION>(norm_a, CI, t % CI, a0, a1, a2);
    coefficients_of<KIND>(norm_b, CO, t % CO, b0, b1, b2);

    float sum[9][OWN];
#pragma unroll
    for (int k = 0; k < 9; k++)
#pragma unroll
        for (int c = 0; c < OWN; c++) sum[k][c] = 0.0f;

    for (int y = top - 1; y <= bottom; y++) {  // the row that comes in: below the one whose gradient is read
        __syncthreads();
        for (int i = t / CI; i < TILE_W + 2; i += THREADS / CI) {
            int x = left + i - 1;
            bool inside = y >= 0 && y < height && x >= 0 && x < width;
            long long at = (((long long)image * height + y) * width + x) * CI + t % CI;
            rows[(y + 1) % 3][i][t % CI] = inside ? value<ACTIVATION>(a, nullptr, at, a0, a1, a2) : 0.0f;
        }
        if (y <= top) continue;
        for (int i = t / CO; i < TILE_W; i += THREADS / CO) {
            int x = left + i;
            long long at = (((long long)image * height + y - 1) * width + x) * CO + t % CO;
            gradient[i * CO + t % CO] = x < width ? value<KIND>(b, g, at, b0, b1, b2) : 0.0f;
        }
        __syncthreads();
        const float* above = &rows[(y + 2) % 3][0][input];  // of row y - 2: rows come round every three
        const float* middle = &rows[y % 3][0][input];
        const float* below = &rows[(y + 1) % 3][0][input];
        float in[9], d[OWN];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            in[k + 1] = above[k * CI];
            in[k + 4] = middle[k * CI];
            in[k + 7] = below[k * CI];
        }
#pragma unroll 2
        for (int x = 0; x < TILE_W; x++) {
#pragma unroll
            for (int ky = 0; ky < 9; ky += 3) {
                in[ky] = in[ky + 1];
                in[ky + 1] = in[ky + 2];
            }
            in[2] = above[(x + 2) * CI];
            in[5] = middle[(x + 2) * CI];
            in[8] = below[(x + 2) * CI];
            Channels::load(gradient + x * CO, mine, d);
#pragma unroll
            for (int k = 0; k < 9; k++)
#pragma unroll
                for (int c = 0; c < OWN; c++) sum[k][c] = fmaf(in[k], d[c], sum[k][c]);
        }
    }
    float* to = shares + ((long long)blockIdx.x * CI + input) * 9 * CO;
#pragma unroll
    for (int k = 0; k < 9; k++) Channels::store(sum[k], mine, to + k * CO);
}

#define CONV3X3(name, CI, CO, OWN, KIND, BACKWARD)                                                           \
    extern "C" __global__ void __launch_bounds__(CO / OWN * GROUPS)                                          \
        name(const float* a, const float* g, const float* norm_in, const float* weights,                     \
             const float* before, const float* norm_out, float* out, double* sums, int height, int width) {  \
        conv3x3<CI, CO, OWN, KIND, BACKWARD>(a, g, norm_in, weights, before, norm_out, out, sums, height,    \
                                             width);                                                         \
    }
#define WEIGHT_GRADIENT(name, CI, CO, OWN, ROWS, KIND)                                                       \
    extern "C" __global__ void __launch_bounds__(CI * CO / OWN, 512 * OWN / (CI * CO))                       \
        name(const float* a, const float* norm_a, const float* b, const float* g, const float* norm_b,       \
             float* shares, int height, int width) {                                                         \
        weight_gradient<CI, CO, OWN, ROWS, KIND>(a, norm_a, b, g, norm_b, shares, height, width);            \
    }

CONV3X3(conv2, C1, C2, 4, ACTIVATION, false)
CONV3X3(conv3, C2, C3, 8, ACTIVATION, false)
CONV3X3(conv3_gradient, C3, C2, 4, PLAIN, true)
CONV3X3(conv2_gradient, C2, C1, 2, GRADIENT, true)
WEIGHT_GRADIENT(conv3_weights, C2, C3, 8, 7, PLAIN)
WEIGHT_GRADIENT(conv2_weights, C1, C2, 4, 4, GRADIENT)
