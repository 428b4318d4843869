// 3x3 convolutions of many channels into many: forward, and the gradients of input and of weights.

// How a thread's OWN channels out of ALL lie: runs of `WIDTH`, `STRIDE` apart.
template <int ALL, int OWN>
struct Channels {
    static constexpr int WIDTH = OWN < 4 ? OWN : 4, COUNT = ALL / OWN, STRIDE = WIDTH * COUNT;
    // Neighbouring threads read the same channels, and those two apart neighbouring vectors: then 128-bit
    // reads of shared memory take half as long. `mine` tells which channels, `other` which thread of these.
    int mine, other;
    __device__ explicit Channels(int thread)
        : mine(thread / 2 % COUNT), other(thread % 2 + thread / (2 * COUNT) * 2) {}
    __device__ int channel(int own) const { return own / WIDTH * STRIDE + mine * WIDTH + own % WIDTH; }
    __device__ void load(const float* row, float* to) const {
#pragma unroll
        for (int run = 0; run < OWN / WIDTH; run++)
            Vector<WIDTH>::load(row + run * STRIDE + mine * WIDTH, to + run * WIDTH);
    }
    __device__ void store(const float* from, float* row) const {
#pragma unroll
        for (int run = 0; run < OWN / WIDTH; run++)
            Vector<WIDTH>::store(from + run * WIDTH, row + run * STRIDE + mine * WIDTH);
    }
};

// A convolution from CI channels to CO, in tiles; a thread computes PIXELS x OWN outputs.
//
// Its input is a (and g) read as `Input<KIND>` says, with the coefficients `norm_in`; its weights are packed
// from `at` on. Forward, out is the convolution, and sums (blocks, 2, CO) get each tile's sum and sum of
// squares, unless they are null. Backward, the convolution is the gradient behind a ReLU of `before` with
// `norm_out`: out is the gradient before it, g, and sums get those of g and of g * (before - mean).
template <int CI, int CO, int KIND, bool BACKWARD>
__device__ void conv3x3(const float* a, const float* g, const float* norm_in, const float* packed, int at,
                        const float* before, const float* norm_out, float* out, double* sums, int height,
                        int width) {
    constexpr int OWN = CO * GROUPS / THREADS;
    __shared__ union {
        struct {
            float4 weights[CHUNK * 9 * CO / 4];
            float tile[CHUNK][EDGED_H][EDGED_W];
        } in;
        double sums[GROUPS][2 * CO];
    } shared;
    const int t = threadIdx.x;
    const Channels<CO, OWN> own(t);
    const int group = own.other, row = group / (TILE_W / PIXELS), first = group % (TILE_W / PIXELS) * PIXELS;
    const Tile tile = tile_of(blockIdx.x, TILE_H, height, width);

    float sum[PIXELS][OWN] = {};
    EdgedTile<KIND, CI, OWN < 8 ? 3 : 1> edged(tile);  // with more sums, registers are short
    for (int chunk = 0; chunk < CI; chunk += CHUNK) {
        edged.read(a, g, chunk, 0);  // while other threads compute the chunk before
        __syncthreads();
        const float4* from = (const float4*)(packed + at + chunk * 9 * CO);
        for (int i = t; i < CHUNK * 9 * CO / 4; i += THREADS) shared.in.weights[i] = from[i];
        edged.finish(a, g, norm_in, chunk, shared.in.tile);
        __syncthreads();
        const float* taps = (const float*)shared.in.weights;
#pragma unroll 1
        for (int ch = 0; ch < CHUNK; ch++) {
#pragma unroll
            for (int ky = 0; ky < 3; ky++) {
                float in[PIXELS + 2], w[OWN];
#pragma unroll
                for (int p = 0; p < PIXELS + 2; p++) in[p] = shared.in.tile[ch][row + ky][first + p];
#pragma unroll
                for (int kx = 0; kx < 3; kx++) {
                    own.load(taps + ((ch * 3 + ky) * 3 + kx) * CO, w);
#pragma unroll
                    for (int p = 0; p < PIXELS; p++)
#pragma unroll
                        for (int c = 0; c < OWN; c++) sum[p][c] = fmaf(in[p + kx], w[c], sum[p][c]);
                }
            }
        }
    }

    const long long to = (tile.first() + row * width + first) * CO;
    const int count = tile.top + row < height ? min(PIXELS, width - tile.left - first) : 0;
    float total[OWN] = {}, product[OWN] = {};
    if (BACKWARD) {
#pragma unroll
        for (int p = 0; p < PIXELS; p++) {
            if (p >= count) continue;
            float pre[OWN];
            own.load(before + to + p * CO, pre);
#pragma unroll
            for (int c = 0; c < OWN; c++) {
                const float* norm = norm_out + own.channel(c);
                float n = fmaf(pre[c], norm[SCALE * CO], norm[SHIFT * CO]);
                if (!(n > 0.0f)) sum[p][c] = 0.0f;
                total[c] += sum[p][c];
                product[c] = fmaf(sum[p][c], pre[c] - norm[MEAN * CO], product[c]);
            }
        }
    }
#pragma unroll
    for (int p = 0; p < PIXELS; p++)
        if (p < count) own.store(sum[p], out + to + p * CO);
    if (sums == nullptr) return;
    __syncthreads();
#pragma unroll
    for (int c = 0; c < OWN; c++) {
        Moments moments;
#pragma unroll
        for (int p = 0; p < PIXELS; p++)
            if (!BACKWARD && p < count) moments.add(sum[p][c]);
        shared.sums[group][own.channel(c)] = BACKWARD ? total[c] : moments.total();
        shared.sums[group][CO + own.channel(c)] = BACKWARD ? product[c] : moments.total_of_squares();
    }
    __syncthreads();
    for (int i = t; i < 2 * CO; i += THREADS) {
        double all = 0.0;
        for (int k = 0; k < GROUPS; k++) all += shared.sums[k][i];
        sums[(long long)blockIdx.x * 2 * CO + i] = all;
    }
}

// A row of TILE_W + 2 * BORDER pixels of an input with C channels, from `left - BORDER` on, as `Input<KIND>`
// reads it; zero outside of the image. `row` is counted from the tile's first.
template <int KIND, int C, int THREADS, int BORDER>
__device__ inline void load_row(const float* a, const float* g, const Input<KIND, 4>& input, Tile tile,
                                int row, float4* to) {
    const long long first = (tile.first() + (long long)row * tile.width) * C + threadIdx.x % (C / 4) * 4;
    for (int i = threadIdx.x / (C / 4); i < TILE_W + 2 * BORDER; i += THREADS / (C / 4)) {
        float values[4];
        input.values(a + first, g + first, (i - BORDER) * C, tile.has(row, i - BORDER), values);
        Vector<4>::store(values, (float*)(to + i * (C / 4) + threadIdx.x % (C / 4)));
    }
}

// The gradient of the weights of a convolution from CI channels to CO: each block's partial sum, from a band
// of ROWS rows of TILE_W columns of one image, written to `partials` (blocks, CI, 9, CO).
//
// The convolution's input is relu(a) with norm_a; the gradient of its output is `Input<KIND>` of b and g. A
// thread sums for one input channel, nine taps and OWN output channels, while it walks along the rows.
template <int CI, int CO, int THREADS, int ROWS, int KIND>
__device__ void weight_gradient(const float* a, const float* norm_a, const float* b, const float* g,
                                const float* norm_b, float* partials, int height, int width) {
    constexpr int OWN = CI * CO / THREADS;
    __shared__ float4 gradient[TILE_W * CO / 4];
    __shared__ float4 rows[3][EDGED_W * CI / 4];
    const int t = threadIdx.x;
    const Channels<CO, OWN> own(t);
    const Tile tile = tile_of(blockIdx.x, ROWS, height, width);
    const int count = min(ROWS, height - tile.top);
    const Input<ACTIVATION, 4> input_a(norm_a, CI, t % (CI / 4) * 4);
    const Input<KIND, 4> input_b(norm_b, CO, t % (CO / 4) * 4);

    float sum[9][OWN] = {};
    for (int y = -1; y <= count; y++) {  // the row that comes in: below the one whose gradient is read
        __syncthreads();
        load_row<ACTIVATION, CI, THREADS, 1>(a, nullptr, input_a, tile, y, rows[(y + 1) % 3]);
        if (y < 1) continue;
        load_row<KIND, CO, THREADS, 0>(b, g, input_b, tile, y - 1, gradient);
        __syncthreads();
        const float* row[3];  // y - 2, y - 1 and y: rows come round every three
        float in[3][3], d[OWN];
#pragma unroll
        for (int ky = 0; ky < 3; ky++) {
            row[ky] = (const float*)rows[(y + 2 + ky) % 3] + own.other;
            in[ky][1] = row[ky][0], in[ky][2] = row[ky][CI];
        }
#pragma unroll 2
        for (int x = 0; x < TILE_W; x++) {
#pragma unroll
            for (int ky = 0; ky < 3; ky++)
                in[ky][0] = in[ky][1], in[ky][1] = in[ky][2], in[ky][2] = row[ky][(x + 2) * CI];
            own.load((const float*)gradient + x * CO, d);
#pragma unroll
            for (int k = 0; k < 9; k++)
#pragma unroll
                for (int c = 0; c < OWN; c++) sum[k][c] = fmaf(in[k / 3][k % 3], d[c], sum[k][c]);
        }
    }
    float* to = partials + ((long long)blockIdx.x * CI + own.other) * 9 * CO;
#pragma unroll
    for (int k = 0; k < 9; k++) own.store(sum[k], to + k * CO);
}

// Four blocks of 128 threads, or two of 256, on a multiprocessor: a thread has at most 128 registers.
#define CONV3X3(name, CI, CO, KIND, BACKWARD)                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                 \
        name(const float* a, const float* g, const float* norm_in, const float* packed, int at,              \
             const float* before, const float* norm_out, float* out, double* sums, int height, int width) {  \
        conv3x3<CI, CO, KIND, BACKWARD>(a, g, norm_in, packed, at, before, norm_out, out, sums, height,      \
                                        width);                                                              \
    }
#define WEIGHT_GRADIENT(name, CI, CO, COUNT, ROWS, KIND)                                                     \
    extern "C" __global__ void __launch_bounds__(COUNT, 512 / COUNT)                                         \
        name(const float* a, const float* norm_a, const float* b, const float* g, const float* norm_b,       \
             float* partials, int height, int width) {                                                       \
        weight_gradient<CI, CO, COUNT, ROWS, KIND>(a, norm_a, b, g, norm_b, partials, height, width);        \
    }

CONV3X3(conv2, C1, C2, ACTIVATION, false)
CONV3X3(conv3, C2, C3, ACTIVATION, false)
CONV3X3(conv3_gradient, C3, C2, PLAIN, true)
CONV3X3(conv2_gradient, C2, C1, GRADIENT, true)
WEIGHT_GRADIENT(conv3_weights, C2, C3, WIDE, ROWS3, PLAIN)
WEIGHT_GRADIENT(conv2_weights, C1, C2, THREADS, ROWS2, GRADIENT)
