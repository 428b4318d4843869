// What the kernels share: tiles, one value of a convolution's input, sums in a fixed order.
//
// The numbers in capitals (C1, TILE_H, W1, ...) come from plan.CONSTANTS, which stand before this text.
//
// Activations are channels-last, (B, H, W, C) in float32; images of one channel are (B, H, W). Each block of
// threads has one tile of TILE_H x TILE_W pixels of one image, or, in weight_gradient, a band of rows. Sums
// over all pixels are taken tile by tile: each block writes its partial sums, and a later kernel adds them up
// in an order that depends on the shapes alone. So two runs give the same bits.
//
// The code is plain enough for a C++ compiler, too: the tests run it on the CPU.
//
// Parameters are one vector: W1, W2, W3, W4 and BIAS are where the convolutions' begin, as Chainer has them,
// (out, in, 3, 3). The kernels read them packed: from P1, P2, P3, P4 (in, tap, out); for the gradients of the
// inputs of conv2 and conv3 from Q2, Q3 (out, tap in reverse order, in).
//
// A layer's normalisation is rows of C values: SCALE * a + SHIFT goes into the ReLU;
// BY_G * g + BY_A * a + CONSTANT is the gradient of a, where g is the gradient of the ReLU's input.

constexpr int PIXELS = 7;  // in a row, computed by one thread of conv3x3
constexpr int GROUPS = TILE_H * TILE_W / PIXELS;
constexpr int CHUNK = 8;   // channels of a tile that shared memory holds at a time
constexpr int EDGED_H = TILE_H + 2, EDGED_W = TILE_W + 2;  // a tile with a border of one pixel

// What a convolution reads as its input: see `value`.
enum { PLAIN, ACTIVATION, GRADIENT };

struct Tile {
    int image, top, left;
    int height, width;  // of the image

    // A pixel, counted from the tile's first; outside of the image there is none.
    __device__ bool has(int row, int column) const {
        int y = top + row, x = left + column;
        return y >= 0 && y < height && x >= 0 && x < width;
    }
    // Where the tile's first pixel is among those of all images. The others are near: an int tells how far.
    __device__ long long first() const { return ((long long)image * height + top) * width + left; }
};

// A block's tile, of `rows` rows.
__device__ inline Tile tile_of(int block, int rows, int height, int width) {
    int across = (width + TILE_W - 1) / TILE_W, down = (height + rows - 1) / rows;
    int in_image = block % (across * down);
    return {block / (across * down), in_image / across * rows, in_image % across * TILE_W, height, width};
}

// By comparison, as Chainer's maximum: fmaxf would make 0 of NaN.
__device__ inline float relu(float n) {
    return n < 0.0f ? 0.0f : n;
}

// N neighbouring floats, read and written at once.
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
template <> struct Vector<1> {
    __device__ static void load(const float* from, float* to) { *to = *from; }
    __device__ static void store(const float* from, float* to) { *to = *from; }
};

// Coefficients of N neighbouring channels, and the values of a convolution's input there.
template <int KIND, int N> struct Input {
    float c0[N], c1[N], c2[N];

    __device__ Input(const float* norm, int channels, int first) {
        for (int i = 0; i < N; i++) {
            const float* column = norm + first + i;
            if (KIND == ACTIVATION) c0[i] = column[SCALE * channels], c1[i] = column[SHIFT * channels];
            if (KIND == GRADIENT)
                c0[i] = column[BY_G * channels], c1[i] = column[BY_A * channels],
                c2[i] = column[CONSTANT * channels];
        }
    }
    __device__ float value(int i, float a, float g) const {
        if (KIND == PLAIN) return a;
        if (KIND == ACTIVATION) return relu(fmaf(a, c0[i], c1[i]));
        return fmaf(c0[i], g, fmaf(c1[i], a, c2[i]));
    }
    // From `at` in a (and g); zeros where there is no such pixel.
    __device__ void values(const float* a, const float* g, int at, bool inside, float* to) const {
        float from_a[N], from_g[N];
        read(a, g, at, inside, from_a, from_g);
        values(from_a, from_g, inside, to);
    }
    // The same in two halves. Between them, more can be read: then the reads overlap.
    __device__ static void read(const float* a, const float* g, int at, bool inside, float* from_a,
                                float* from_g) {
        if (!inside) return;
        Vector<N>::load(a + at, from_a);
        if (KIND == GRADIENT) Vector<N>::load(g + at, from_g);
    }
    __device__ void values(const float* from_a, const float* from_g, bool inside, float* to) const {
        for (int i = 0; i < N; i++)
            to[i] = inside ? value(i, from_a[i], KIND == GRADIENT ? from_g[i] : 0.0f) : 0.0f;
    }
};

// CHUNK channels of an edged tile of a convolution's input with CI channels; zero outside of the image. A
// thread reads four channels of a pixel at once, of every STEP-th pixel. It reads AT_ONCE of its OWN pixels
// before it stores them: then these reads overlap.
template <int KIND, int CI, int AT_ONCE = 3> struct EdgedTile {
    static constexpr int FOURS = CHUNK / 4, STEP = THREADS / FOURS, COUNT = EDGED_H * EDGED_W;
    static constexpr int OWN = (COUNT + STEP - 1) / STEP;
    const Tile tile;
    const int first = threadIdx.x % FOURS * 4;  // channel of the chunk
    float from_a[AT_ONCE][4], from_g[AT_ONCE][4];

    __device__ explicit EdgedTile(Tile tile) : tile(tile) {}
    __device__ static int pixel(int i) { return threadIdx.x / FOURS + i * STEP; }
    __device__ bool inside(int pixel) const {
        return pixel < COUNT && tile.has(pixel / EDGED_W - 1, pixel % EDGED_W - 1);
    }
    // From the thread's pixel of that number on, the channels from `chunk` on.
    __device__ void read(const float* a, const float* g, int chunk, int number) {
        const long long at = tile.first() * CI + chunk + first;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int p = pixel(number + i), near = (p / EDGED_W - 1) * tile.width + p % EDGED_W - 1;
            Input<KIND, 4>::read(a + at, g + at, near * CI, inside(p), from_a[i], from_g[i]);
        }
    }
    __device__ void store(const Input<KIND, 4>& input, int number, float (*to)[EDGED_H][EDGED_W]) const {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int p = pixel(number + i);
            float values[4];
            input.values(from_a[i], from_g[i], inside(p), values);
            if (p >= COUNT) continue;
            for (int c = 0; c < 4; c++) to[first + c][0][p] = values[c];
        }
    }
    // All that is left to be stored, the first AT_ONCE being read.
    __device__ void finish(const float* a, const float* g, const float* norm, int chunk,
                           float (*to)[EDGED_H][EDGED_W]) {
        const Input<KIND, 4> input(norm, CI, chunk + first);
        store(input, 0, to);
        for (int number = AT_ONCE; number < OWN; number += AT_ONCE) {
            read(a, g, chunk, number);
            store(input, number, to);
        }
    }
};

// An edged tile of an image of one channel; zero outside of the image.
__device__ inline void load_image(const float* x, Tile tile, float (*to)[EDGED_W]) {
    x += tile.first();
    for (int i = threadIdx.x; i < EDGED_H * EDGED_W; i += blockDim.x) {
        int row = i / EDGED_W - 1, column = i % EDGED_W - 1;
        to[row + 1][column + 1] = tile.has(row, column) ? x[row * tile.width + column] : 0.0f;
    }
}

// Sum and sum of squares of a few floats, in single precision relative to the first of them: a large mean
// does not swamp the variance, and only the result is in double precision, which many GPUs compute slowly.
struct Moments {
    float pivot = 0.0f, sum = 0.0f, squares = 0.0f;
    int count = 0;

    __device__ void add(float value) {
        if (count++ == 0) pivot = value;
        float difference = value - pivot;
        sum += difference;
        squares = fmaf(difference, difference, squares);
    }
    __device__ double total() const { return (double)count * pivot + sum; }
    __device__ double total_of_squares() const {
        return ((double)count * pivot + 2.0 * sum) * pivot + squares;
    }
};

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
