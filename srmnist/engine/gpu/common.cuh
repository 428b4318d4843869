// What the kernels share: the network's layout in memory, tiles, and sums whose order is fixed.
//
// Activations are channels-last, (B, H, W, C) in float32; images of one channel are (B, H, W). Each block of
// threads has one tile of TILE_H x TILE_W pixels of one image, or, in weight_gradient, a band of rows.
// Sums over all pixels are taken tile by tile: each block writes what it has, and a later kernel adds that up
// in an order that depends on nothing but the shapes. So no two runs differ by a bit.
//
// The code is plain enough to be compiled by a C++ compiler too, which is how the tests run it.

constexpr int C1 = 16, C2 = 32, C3 = 64;
constexpr int TILE_H = 4, TILE_W = 28;
constexpr int PIXELS = 7;  // in a row, computed by one thread of conv3x3
constexpr int GROUPS = TILE_H * TILE_W / PIXELS;
constexpr int CHUNK = 8;   // channels of a tile that shared memory holds at a time

// The parameters in one vector, in the order of plan.PARAMETERS; convolutions as Chainer has them, (out, in, 3, 3).
constexpr int W1 = 0, GAMMA1 = W1 + C1 * 9, BETA1 = GAMMA1 + C1;
constexpr int W2 = BETA1 + C1, GAMMA2 = W2 + C2 * C1 * 9, BETA2 = GAMMA2 + C2;
constexpr int W3 = BETA2 + C2, GAMMA3 = W3 + C3 * C2 * 9, BETA3 = GAMMA3 + C3;
constexpr int W4 = BETA3 + C3, BIAS = W4 + C3 * 9, PARAMETERS = BIAS + 1;

// The convolutions' weights as the kernels read them: (in, tap, out), and for the gradients of the inputs of
// conv2 and conv3 (out, tap in reverse order, in).
constexpr int P1 = 0, P2 = P1 + 9 * C1, P3 = P2 + 9 * C1 * C2, P4 = P3 + 9 * C2 * C3;
constexpr int Q2 = P4 + 9 * C3, Q3 = Q2 + 9 * C1 * C2, PACKED = Q3 + 9 * C2 * C3;

// One layer's normalisation, a row of C values each. The first two give what a ReLU takes,
// SCALE * a + SHIFT; BY_G * g + BY_A * a + CONSTANT is the gradient of a where g is that of the former.
enum { SCALE, SHIFT, MEAN, INVERSE_STD, BY_G, BY_A, CONSTANT };

// What a thread of conv3x3 reads as input: see `value`.
enum { PLAIN, ACTIVATION, GRADIENT };

struct Tile {
    int image, top, left;
};

__device__ inline Tile tile_of(int block, int height, int width) {
    int across = (width + TILE_W - 1) / TILE_W, down = (height + TILE_H - 1) / TILE_H;
    int in_image = block % (across * down);
    return {block / (across * down), in_image / across * TILE_H, in_image % across * TILE_W};
}

__device__ inline float relu_input(float a, float scale, float shift) {
    return fmaf(a, scale, shift);
}

// One value of a convolution's input, with the coefficients of its channel.
template <int KIND>
__device__ inline float value(const float* a, const float* g, long long at, float c0, float c1, float c2) {
    if (KIND == PLAIN) return a[at];
    if (KIND == ACTIVATION) return fmaxf(relu_input(a[at], c0, c1), 0.0f);
    return fmaf(c0, g[at], fmaf(c1, a[at], c2));
}

// The three coefficients that `value` takes for a channel.
template <int KIND>
__device__ inline void coefficients_of(const float* norm, int channels, int c, float& c0, float& c1, float& c2) {
    if (KIND == ACTIVATION) {
        c0 = norm[SCALE * channels + c];
        c1 = norm[SHIFT * channels + c];
    }
    if (KIND == GRADIENT) {
        c0 = norm[BY_G * channels + c];
        c1 = norm[BY_A * channels + c];
        c2 = norm[CONSTANT * channels + c];
    }
}

// An image of one channel: a tile with a border of one pixel, zero outside of the image.
__device__ inline void load_image(const float* x, Tile tile, int height, int width,
                                  float (*to)[TILE_W + 2]) {
    for (int i = threadIdx.x; i < (TILE_H + 2) * (TILE_W + 2); i += blockDim.x) {
        int y = i / (TILE_W + 2), c = i % (TILE_W + 2), row = tile.top + y - 1, column = tile.left + c - 1;
        bool inside = row >= 0 && row < height && column >= 0 && column < width;
        to[y][c] = inside ? x[((long long)tile.image * height + row) * width + column] : 0.0f;
    }
}

// The sum of `mine` over a block of a power of two of threads; `scratch` has room for one double a thread.
__device__ inline double block_sum(double mine, double* scratch) {
    int t = threadIdx.x;
    __syncthreads();
    scratch[t] = mine;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) scratch[t] += scratch[t + half];
        __syncthreads();
    }
    return scratch[0];
}

// Some consecutive floats, read and written at once: 4, or 2.
template <int N> struct Vector;
template <> struct Vector<4> {
    __device__ static void load(const float* from, float* to) {
        float4 v = *(const float4*)from;
        to[0] = v.x; to[1] = v.y; to[2] = v.z; to[3] = v.w;
    }
    __device__ static void store(const float* from, float* to) {
        *(float4*)to = make_float4(from[0], from[1], from[2], from[3]);
    }
};
template <> struct Vector<2> {
    __device__ static void load(const float* from, float* to) {
        float2 v = *(const float2*)from;
        to[0] = v.x; to[1] = v.y;
    }
    __device__ static void store(const float* from, float* to) {
        *(float2*)to = make_float2(from[0], from[1]);
    }
};
