// Muon: the update of the first three convolutions' weights, as srmnist/training/recipes.py has it. A block
// has one weight as a matrix, and all its products of matrices. Few threads wait for few reads here, so a
// thread reads many values before it uses the first: then the reads overlap.

// Matrices of SIDE x SIDE, a multiple of 16, of a block of WIDE threads: each has OWN x OWN values of one.
template <int SIDE> struct Square {
    static constexpr int ACROSS = 16, OWN = SIDE / ACROSS;
    static_assert(ACROSS * ACROSS == WIDE, "");
    float own[OWN][OWN] = {};

    // A warp has 4 x 8 threads' values: so the fewest of a row of a and of b that it needs together.
    __device__ static int row() { return (threadIdx.x / 64 * 4 + threadIdx.x % 32 / 8) * OWN; }
    __device__ static int column() { return (threadIdx.x / 32 % 2 * 8 + threadIdx.x % 8) * OWN; }

    // The product of the transpose of a and b is added. Both are read along their rows, which are `stride`
    // apart, at once by neighbouring threads.
    __device__ void add_product(const float* a, const float* b, int stride = SIDE) {
#pragma unroll 16
        for (int k = 0; k < SIDE; k++) {
            float left[OWN], right[OWN];
            Vector<OWN>::load(a + k * stride + row(), left);
            Vector<OWN>::load(b + k * stride + column(), right);
#pragma unroll
            for (int i = 0; i < OWN; i++)
#pragma unroll
                for (int j = 0; j < OWN; j++) own[i][j] = fmaf(left[i], right[j], own[i][j]);
        }
    }
    // After all threads have read what is in `to`, and before any of them reads what is then there.
    __device__ void store(float* to) const {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; i++) Vector<OWN>::store(own[i], to + (row() + i) * SIDE + column());
        __syncthreads();
    }
};

// A kernel of 3 x 3 weights times the matrix MUON_D from both sides, as recipes.decorrelate.
__device__ inline void decorrelate(float* kernel) {
    auto along = [kernel](int first, int step) {
        const float a = kernel[first], b = kernel[first + step], c = kernel[first + 2 * step];
        kernel[first] = MUON_D00 * a + MUON_D01 * b + MUON_D02 * c;
        kernel[first + step] = MUON_D10 * a + MUON_D11 * b + MUON_D12 * c;
        kernel[first + 2 * step] = MUON_D20 * a + MUON_D21 * b + MUON_D22 * c;
    };
#pragma unroll
    for (int i = 0; i < 3; i++) along(3 * i, 1);
#pragma unroll
    for (int i = 0; i < 3; i++) along(i, 3);
}

// Every kernel of `count`, AT_ONCE for a thread at once: read(its first weight, values) of all of these, then
// write(its first weight, values). Two arrays of nine values each are kept in between.
template <class Read, class Write> __device__ void each_kernel(int count, Read read, Write write) {
    constexpr int AT_ONCE = 2;
    for (int first = threadIdx.x; first < count; first += WIDE * AT_ONCE) {
        float one[AT_ONCE][9], other[AT_ONCE][9];
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++)
            if (first + n * WIDE < count) read(9 * (first + n * WIDE), one[n], other[n]);
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++)
            if (first + n * WIDE < count) write(9 * (first + n * WIDE), one[n], other[n]);
    }
}

// A weight of ROWS x COLUMNS from `at` in the vectors; `m` has its momentum, and `x` is room for as much.
// `shared` is three squares.
template <int ROWS, int COLUMNS, int SIDE>
__device__ void muon_update(const float* h, float* parameters, const float* gradient, float* m, float* x,
                            int at, float* shared) {
    constexpr bool TALL = ROWS > COLUMNS;
    constexpr int SHORT = TALL ? COLUMNS : ROWS, LONG = TALL ? ROWS : COLUMNS;
    constexpr int KERNELS = ROWS * COLUMNS / 9, OWN = Square<SIDE>::OWN;
    static_assert(SHORT <= SIDE && COLUMNS % 9 == 0, "");
    float *square = shared, *factor = shared + SIDE * SIDE, *whole = shared + 2 * SIDE * SIDE;
    parameters += at, gradient += at, m += at, x += at;

    float squares = 0.0f;
    each_kernel(
        KERNELS,
        [&](int i, float* g, float* momentum) {
            for (int k = 0; k < 9; k++) g[k] = gradient[i + k], momentum[k] = m[i + k];
        },
        [&](int i, float* g, float* momentum) {
            for (int k = 0; k < 9; k++) {
                momentum[k] = MUON_MOMENTUM * momentum[k] + g[k];
                m[i + k] = momentum[k];
                g[k] = g[k] + MUON_MOMENTUM * momentum[k];
            }
            decorrelate(g);
            for (int k = 0; k < 9; k++) {
                squares = fmaf(g[k], g[k], squares);
                x[i + k] = g[k];
            }
        });
    const float by_norm = 1.0f / (sqrtf((float)block_sum((double)squares, (double*)shared)) + 1e-7f);

    // Of x, transposed if TALL, the singular values become one. SIDE columns of that matrix of SHORT x LONG,
    // from `from`, come to shared memory, divided by the norm. There a row is `down` after the one before, and
    // a column `across`. Neighbouring threads read neighbouring values.
    auto index = [](int i, int k) { return TALL ? k * COLUMNS + i : i * COLUMNS + k; };
    auto bring = [&](int from, float* to, int down, int across) {
        constexpr int STEP = WIDE / SIDE, EACH = SIDE / STEP;
        const int row = threadIdx.x / SIDE, column = threadIdx.x % SIDE, at = index(row, from + column);
        float values[EACH];
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const bool inside = row + n * STEP < SHORT && from + column < LONG;
            values[n] = inside ? x[at + index(n * STEP, 0)] : 0.0f;
        }
        __syncthreads();  // all threads have read what is in `to`
#pragma unroll
        for (int n = 0; n < EACH; n++)
            to[(row + n * STEP) * down + column * across] = values[n] * by_norm;
        __syncthreads();
    };
    {
        // Transposed, in the room of `factor` and `whole`: a row longer than SIDE lets neighbouring threads
        // store to different banks of shared memory.
        constexpr int STRIDE = SIDE + 4;
        Square<SIDE> product;
        for (int from = 0; from < LONG; from += SIDE) {
            bring(from, factor, 1, STRIDE);
            product.add_product(factor, factor, STRIDE);
        }
        product.store(square);
    }
    // All squares are polynomials of x times its transpose, so they are symmetric, and commute.
#pragma unroll 1
    for (int iteration = 0; iteration < MUON_ITERATIONS; iteration++) {
        Square<SIDE> polynomial;
        polynomial.add_product(square, square);
#pragma unroll
        for (int i = 0; i < OWN; i++)
#pragma unroll
            for (int j = 0; j < OWN; j++) {
                const int row = polynomial.row() + i, column = polynomial.column() + j;
                float& own = polynomial.own[i][j];
                own = MUON_B * square[row * SIDE + column] + MUON_C * own + (row == column ? MUON_A : 0.0f);
            }
        polynomial.store(factor);
        if (iteration == 0) {
            polynomial.store(whole);
        } else {
            Square<SIDE> product;
            product.add_product(factor, whole);
            product.store(whole);
        }
        if (iteration == MUON_ITERATIONS - 1) break;
        for (int time = 0; time < 2; time++) {
            Square<SIDE> product;
            product.add_product(square, factor);
            product.store(square);
        }
    }
    for (int from = 0; from < LONG; from += SIDE) {
        bring(from, square, SIDE, 1);
        Square<SIDE> product;
        product.add_product(whole, square);
        const int row = Square<SIDE>::row(), column = from + Square<SIDE>::column();
#pragma unroll
        for (int i = 0; i < OWN; i++)
#pragma unroll
            for (int j = 0; j < OWN; j++)
                if (row + i < SHORT && column + j < LONG) x[index(row + i, column + j)] = product.own[i][j];
    }
    __syncthreads();
    const float rate = h[MUON_RATE] * sqrtf(TALL ? (float)ROWS / COLUMNS : 1.0f);
    each_kernel(
        KERNELS,
        [&](int i, float* update, float* before) {
            for (int k = 0; k < 9; k++) update[k] = x[i + k], before[k] = parameters[i + k];
        },
        [&](int i, float* update, float* before) {
            decorrelate(update);
            for (int k = 0; k < 9; k++) parameters[i + k] = before[k] - rate * update[k];
        });
}

// The weights of conv1, conv2 and conv3, each by one of three blocks. Of `v`, their places are used as room.
extern "C" __global__ void __launch_bounds__(WIDE)
    muon(const float* h, float* parameters, const float* gradient, float* m, float* v) {
    __shared__ float4 shared[3 * C3 * C3 / 4];
    float* squares = (float*)shared;
    if (blockIdx.x == 0) muon_update<C1, 9, 16>(h, parameters, gradient, m, v, W1, squares);
    if (blockIdx.x == 1) muon_update<C2, 9 * C1, C2>(h, parameters, gradient, m, v, W2, squares);
    if (blockIdx.x == 2) muon_update<C3, 9 * C2, C3>(h, parameters, gradient, m, v, W3, squares);
}
