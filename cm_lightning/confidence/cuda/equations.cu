// Linear systems from intensities, maps from solutions, and gradients, in double.
//
// The formulas are those of cm_lightning/confidence/weights.py and graph.py. Blocks have 256 threads, and process
// PIXELS_PER_BLOCK pixels if the grid is over pixels. The last axis of every grid and the first axis of arrays is the
// frame; masks may be shared by several frames.

// Bits of the kind of a pixel, which describes the boundary conditions.
#define INSIDE 1         // in the domain
#define UNKNOWN 2        // the value of the map is computed
#define VALUE_ONE 4      // the value of the map is known to be 1; that of other known pixels is 0
#define VIRTUAL_SOURCE 8 // connected to a virtual node with the value 1 by an edge of weight 1
#define VIRTUAL_SINK 16  // connected to a virtual node with the value 0 by an edge of weight 1

// Columns of the table of frames.
#define TABLE_FIELDS 4
#define NUMBER 0    // index of the frame in the arrays of all frames
#define MASK 1      // index of its mask
#define FIRST_ROW 2 // first row of its domain
#define LAST_ROW 3  // last row of its domain

// Columns of the scales of a frame: g = (intensity - LOWEST) / RANGE, and the coefficients of the exponent.
#define SCALE_FIELDS 5
#define LOWEST 0
#define RANGE 1
#define STEP_SCALE 2         // factor of |g_i - g_j|
#define HORIZONTAL_PENALTY 3 // penalties, which are multiplied by beta
#define DIAGONAL_PENALTY 4

#define HUGE_NUMBER 1.7976931348623157e308

__device__ inline double smaller(double first, double second) { return first < second ? first : second; }

// Copy the rectangle of frames whose first pixel is at `top` and `left`, optionally with reversed columns. Rows of frames
// have `width` pixels, and frames have `size` pixels. Frames with NaN or infinity, also outside the rectangle, are noted.
#define LOAD_FRAMES                                                                                                   \
    const long long frame = blockIdx.z;                                                                               \
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {                                                                \
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;                     \
        if (pixel >= size) break;                                                                                     \
        const double value = frames[frame * size + pixel];                                                            \
        if (!(value - value == 0)) invalid[frame] = 1;                                                                \
        const long long row = pixel / width - top, column = pixel % width - left;                                     \
        if (row >= 0 && row < depth && column >= 0 && column < lateral)                                               \
            image[(frame * depth + row) * lateral + (mirrored ? lateral - 1 - column : column)] = value;              \
    }

extern "C" __global__ void load_float_frames(const float *frames, const long long size, const long long width,
                                             const long long top, const long long left, const long long depth,
                                             const long long lateral, const long long mirrored, double *image,
                                             int *invalid) {
    LOAD_FRAMES
}

extern "C" __global__ void load_double_frames(const double *frames, const long long size, const long long width,
                                              const long long top, const long long left, const long long depth,
                                              const long long lateral, const long long mirrored, double *image,
                                              int *invalid) {
    LOAD_FRAMES
}

// Compute the smallest and the largest intensity of each block of pixels, and the attenuation of every row.
extern "C" __global__ void measure_extremes(const double *image, const unsigned char *kinds, const int *table,
                                            const long long depth, const long long lateral, const double alpha,
                                            const long long complement, double *extremes, double *decay) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z, pixels = depth * lateral;
    const int *entry = table + frame * TABLE_FIELDS;
    image += frame * pixels;
    kinds += entry[MASK] * pixels;
    double lowest = HUGE_NUMBER, highest = -HUGE_NUMBER;
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel < pixels && (kinds[pixel] & INSIDE)) {
            lowest = smaller(lowest, image[pixel]);
            highest = larger(highest, image[pixel]);
        }
    }
    lowest = -block_maximum(-lowest, shared);
    highest = block_maximum(highest, shared);
    if (threadIdx.x == 0) {
        extremes[2 * (frame * gridDim.x + blockIdx.x)] = lowest;
        extremes[2 * (frame * gridDim.x + blockIdx.x) + 1] = highest;
    }
    if (blockIdx.x > 0) return;
    const int rows = entry[LAST_ROW] > entry[FIRST_ROW] ? entry[LAST_ROW] - entry[FIRST_ROW] : 1;
    for (int row = threadIdx.x; row < depth; row += 256) {
        const double relative = (row - entry[FIRST_ROW]) / (double)rows;
        const double factor = exp(-alpha * larger(0.0, smaller(1.0, relative)));
        decay[frame * depth + row] = complement ? 1 - factor : factor;
    }
}

// Attenuated intensity of a pixel.
#define INTENSITY(pixel, row) ((image[pixel] - lowest) * inverse * decay[row])

// Compute the largest step along each of the four kinds of edges for each block of pixels, -1 if there are none. If
// `rescale` is 0, the intensities have a fixed scale from 0 to `unit`.
extern "C" __global__ void measure_steps(const double *image, const unsigned char *kinds, const int *table,
                                         const long long depth, const long long lateral, const double *extremes,
                                         const double *decay, const long long rescale, const double unit,
                                         double *scales, double *steps) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z, pixels = depth * lateral;
    image += frame * pixels;
    kinds += table[frame * TABLE_FIELDS + MASK] * pixels;
    decay += frame * depth;
    double lowest = 0, range = unit;
    if (rescale) {
        double least = HUGE_NUMBER, most = -HUGE_NUMBER;
        for (int part = threadIdx.x; part < gridDim.x; part += 256) {
            least = smaller(least, extremes[2 * (frame * gridDim.x + part)]);
            most = larger(most, extremes[2 * (frame * gridDim.x + part) + 1]);
        }
        lowest = -block_maximum(-least, shared);
        most = block_maximum(most, shared);
        range = most > lowest ? most - lowest : 1;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        scales[frame * SCALE_FIELDS + LOWEST] = lowest;
        scales[frame * SCALE_FIELDS + RANGE] = range;
    }
    const double inverse = 1 / range;
    double vertical = -1, horizontal = -1, down_right = -1, down_left = -1;
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels || !(kinds[pixel] & INSIDE)) continue;
        const int row = (int)(pixel / lateral), column = (int)(pixel - row * lateral);
        const bool below = row + 1 < depth, before = column > 0, after = column + 1 < lateral;
        const double own = INTENSITY(pixel, row);
#define MEASURE(exists, other, other_row, largest)                                                                     \
    if (exists && (kinds[other] & INSIDE)) largest = larger(largest, magnitude_of(own - INTENSITY(other, other_row)));
        MEASURE(below, pixel + lateral, row + 1, vertical)
        MEASURE(after, pixel + 1, row, horizontal)
        MEASURE(below && after, pixel + lateral + 1, row + 1, down_right)
        MEASURE(below && before, pixel + lateral - 1, row + 1, down_left)
    }
    vertical = block_maximum(vertical, shared);
    horizontal = block_maximum(horizontal, shared);
    down_right = block_maximum(down_right, shared);
    down_left = block_maximum(down_left, shared);
    if (threadIdx.x == 0) {
        steps += 4 * (frame * gridDim.x + blockIdx.x);
        steps[0] = vertical;
        steps[1] = horizontal;
        steps[2] = down_right;
        steps[3] = down_left;
    }
}

// Compute the coefficients of w = exp(-scale |g_i - g_j| - penalty) + floor. If `rescale` is nonzero, steps are divided
// by the largest one, and again by the largest sum of a step and its penalty. There is one block per frame.
extern "C" __global__ void find_scales(const long long parts, const double *steps, const long long rescale,
                                       const double beta, const double gamma, const double diagonal_gamma,
                                       double *scales) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z;
    double largest[4];
    for (int kind = 0; kind < 4; kind++) {
        double most = -1;
        for (long long part = threadIdx.x; part < parts; part += 256)
            most = larger(most, steps[4 * (frame * parts + part) + kind]);
        largest[kind] = block_maximum(most, shared);
    }
    if (threadIdx.x > 0) return;
    double unit = 1;
    if (rescale) {
        double overall = larger(larger(largest[0], largest[1]), larger(largest[2], largest[3]));
        if (!(overall > 0)) overall = 1;
        double penalised = larger(largest[0], 0.0) / overall;
        for (int kind = 1; kind < 4; kind++)
            if (largest[kind] >= 0) penalised = larger(penalised, largest[kind] / overall + gamma);
        if (!(penalised > 0)) penalised = 1;
        scales[frame * SCALE_FIELDS + STEP_SCALE] = beta / (overall * penalised);
        unit = penalised;
    } else {
        scales[frame * SCALE_FIELDS + STEP_SCALE] = beta;
    }
    scales[frame * SCALE_FIELDS + HORIZONTAL_PENALTY] = beta * gamma / unit;
    scales[frame * SCALE_FIELDS + DIAGONAL_PENALTY] = beta * diagonal_gamma / unit;
}

// Assemble the linear systems, and optionally compute the largest and the smallest weight of each block of pixels.
extern "C" __global__ void assemble_systems(const double *image, const unsigned char *kinds, const int *table,
                                            const long long depth, const long long lateral, const double *decay,
                                            const double *scales, const double floor, double *vertical,
                                            double *horizontal, double *down_right, double *down_left, double *slack,
                                            unsigned char *unknown, double *right, double *contrast) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z, pixels = depth * lateral;
    SELECT_GRAPH(frame)
    right += frame * pixels;
    image += frame * pixels;
    kinds += table[frame * TABLE_FIELDS + MASK] * pixels;
    decay += frame * depth;
    scales += frame * SCALE_FIELDS;
    const double lowest = scales[LOWEST], inverse = 1 / scales[RANGE], scale = scales[STEP_SCALE];
    double least = HUGE_NUMBER, most = 0;
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const int row = (int)(pixel / lateral), column = (int)(pixel - row * lateral);
        const bool above = row > 0, below = row + 1 < depth, before = column > 0, after = column + 1 < lateral;
        const long long edge = (long long)row * (lateral - 1) + column; // for arrays with lateral - 1 columns
        const unsigned char kind = kinds[pixel];
        const bool mine = kind & UNKNOWN;
        const double own = INTENSITY(pixel, row);
        double total = 0, flow = 0;
        if (mine && (kind & VIRTUAL_SOURCE)) total = flow = 1;
        if (mine && (kind & VIRTUAL_SINK)) total += 1;
        // Only edges between unknown pixels are stored, each by its first pixel. Weights to known pixels are summed.
#define CONNECT(exists, other, other_row, penalty, weights, place)                                                    \
    if (exists) {                                                                                                     \
        const unsigned char neighbour = kinds[other];                                                                 \
        double weight = 0;                                                                                            \
        if (mine && (neighbour & INSIDE))                                                                             \
            weight = exp(-scale * magnitude_of(own - INTENSITY(other, other_row)) - penalty) + floor;                 \
        const bool stored = mine && (neighbour & UNKNOWN);                                                            \
        weights[place] = stored ? weight : 0;                                                                         \
        if (stored) {                                                                                                 \
            least = smaller(least, weight);                                                                           \
            most = larger(most, weight);                                                                              \
        } else {                                                                                                      \
            total += weight;                                                                                          \
            if (neighbour & VALUE_ONE) flow += weight;                                                                \
        }                                                                                                             \
    }
#define CONNECT_BACK(exists, other, other_row, penalty)                                                               \
    if (exists && mine) {                                                                                             \
        const unsigned char neighbour = kinds[other];                                                                 \
        if ((neighbour & INSIDE) && !(neighbour & UNKNOWN)) {                                                         \
            const double weight =                                                                                     \
                exp(-scale * magnitude_of(own - INTENSITY(other, other_row)) - penalty) + floor;                      \
            total += weight;                                                                                          \
            if (neighbour & VALUE_ONE) flow += weight;                                                                \
        }                                                                                                             \
    }
        CONNECT(below, pixel + lateral, row + 1, 0, vertical, pixel)
        CONNECT(after, pixel + 1, row, scales[HORIZONTAL_PENALTY], horizontal, edge)
        CONNECT(below && after, pixel + lateral + 1, row + 1, scales[DIAGONAL_PENALTY], down_right, edge)
        CONNECT(below && before, pixel + lateral - 1, row + 1, scales[DIAGONAL_PENALTY], down_left, edge - 1)
        CONNECT_BACK(above, pixel - lateral, row - 1, 0)
        CONNECT_BACK(before, pixel - 1, row, scales[HORIZONTAL_PENALTY])
        CONNECT_BACK(above && before, pixel - lateral - 1, row - 1, scales[DIAGONAL_PENALTY])
        CONNECT_BACK(above && after, pixel - lateral + 1, row - 1, scales[DIAGONAL_PENALTY])
        slack[pixel] = total;
        right[pixel] = flow;
        unknown[pixel] = mine;
        if (total > 0) {
            least = smaller(least, total);
            most = larger(most, total);
        }
    }
    if (contrast) {
        least = -block_maximum(-least, shared);
        most = block_maximum(most, shared);
        if (threadIdx.x == 0) {
            contrast[2 * (frame * gridDim.x + blockIdx.x)] = least;
            contrast[2 * (frame * gridDim.x + blockIdx.x) + 1] = most;
        }
    }
}

// Write the maps of frames to the rectangle of these frames whose first pixel is at `top` and `left`: solutions from 0
// to 1, and the known values. Rows of the maps have `width` pixels, and maps have `size` pixels.
#define STORE_MAPS(type)                                                                                              \
    const long long frame = blockIdx.z, pixels = depth * lateral;                                                     \
    const int *entry = table + frame * TABLE_FIELDS;                                                                  \
    solution += frame * pixels;                                                                                       \
    kinds += entry[MASK] * pixels;                                                                                    \
    maps += entry[NUMBER] * size + top * width + left;                                                                \
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {                                                                \
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;                     \
        if (pixel >= pixels) break;                                                                                   \
        const long long row = pixel / lateral, column = pixel - row * lateral;                                        \
        const double known = kinds[pixel] & VALUE_ONE ? 1 : 0;                                                        \
        maps[row * width + column] =                                                                                  \
            (type)(kinds[pixel] & UNKNOWN ? smaller(1.0, larger(0.0, solution[pixel])) : known);                          \
    }

extern "C" __global__ void store_float_maps(const double *solution, const unsigned char *kinds, const int *table,
                                            const long long depth, const long long lateral, float *maps,
                                            const long long size, const long long width, const long long top,
                                            const long long left) {
    STORE_MAPS(float)
}

extern "C" __global__ void store_double_maps(const double *solution, const unsigned char *kinds, const int *table,
                                             const long long depth, const long long lateral, double *maps,
                                             const long long size, const long long width, const long long top,
                                             const long long left) {
    STORE_MAPS(double)
}

// Propagate a gradient from maps to intensities with a fixed scale: dL/dw_ij = -(l_i - l_j) (x_i - x_j) with the adjoint
// solution l. Maps and gradients have rows of `width` pixels and frames of `size` pixels, as in the kernels above.
extern "C" __global__ void propagate_gradients(const double *image, const unsigned char *kinds, const int *table,
                                               const long long depth, const long long lateral, const double *decay,
                                               const double *scales, const double *adjoint, const double *maps,
                                               double *gradients, const long long size, const long long width,
                                               const long long top, const long long left) {
    const long long frame = blockIdx.z, pixels = depth * lateral;
    const long long start = table[frame * TABLE_FIELDS + NUMBER] * size + top * width + left;
    image += frame * pixels;
    kinds += table[frame * TABLE_FIELDS + MASK] * pixels;
    decay += frame * depth;
    scales += frame * SCALE_FIELDS;
    adjoint += frame * pixels;
    maps += start;
    gradients += start;
    const double lowest = scales[LOWEST], inverse = 1 / scales[RANGE], scale = scales[STEP_SCALE];
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const int row = (int)(pixel / lateral), column = (int)(pixel - row * lateral);
        const double own = INTENSITY(pixel, row);
        double slope = 0;
        if (kinds[pixel] & INSIDE) {
            for (int down = -1; down <= 1; down++) {
                for (int right = -1; right <= 1; right++) {
                    const int other_row = row + down, other_column = column + right;
                    const bool exists = other_row >= 0 && other_row < depth && other_column >= 0 &&
                                        other_column < lateral && (down != 0 || right != 0);
                    const long long other = other_row * lateral + other_column;
                    if (!exists || !(kinds[other] & INSIDE)) continue;
                    const double step = own - INTENSITY(other, other_row);
                    const double penalty =
                        right == 0 ? 0 : scales[down == 0 ? HORIZONTAL_PENALTY : DIAGONAL_PENALTY];
                    const double by_weight = (adjoint[pixel] - adjoint[other]) *
                                             (maps[row * width + column] - maps[other_row * width + other_column]);
                    const double sign = step > 0 ? 1 : step < 0 ? -1 : 0;
                    slope += scale * exp(-scale * magnitude_of(step) - penalty) * sign * by_weight;
                }
            }
        }
        gradients[row * width + column] = slope * decay[row] * inverse;
    }
}
