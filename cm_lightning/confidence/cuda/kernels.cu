// Subtraction-free nested dissection and conjugate gradients on batches of frames.
//
// The algorithm and the names are those of cm_lightning/confidence/cpu/elimination.py. This file is compiled with and
// without DOUBLE_PRECISION, which determines the type of the factor. It needs no headers, and uses no warp intrinsics
// and no atomics: every value is written by one thread, and the order of sums depends only on the shape of the frame,
// so that the result for a frame is bit-identical in all batches.
//
// The last axis of every grid and the first axis of every array is the frame. Integer arguments are long long.

#ifdef DOUBLE_PRECISION
typedef double real;
#define SCALE 1.0
#define ROOT_SCALE 1.0
#define NEGLIGIBLE 2.2250738585072014e-300
#else
typedef float real;
// Weights are at most 1. They are scaled by 2^96 to use the entire range of float. Inverses of blocks, which have the
// scale 2^-96, and right-hand sides are scaled by 2^48, so that their products have no scale.
#define SCALE 79228162514264337593543950336.0
#define ROOT_SCALE 281474976710656.0
// Smaller ratios are set to 0. They are far below rounding errors, and would lead to underflow.
#define NEGLIGIBLE 1.1754943508222875e-30f
#endif

#define CELL_PIXELS 49    // pixels of a cell, which are all eliminated
#define RING 32           // pixels around a cell
#define CELL_WEIGHTS 1319 // weights of a window that can be nonzero, those between ring pixels last
#define CELL_FACTOR 823   // weights of eliminated pixels
#define RING_PAIRS 496    // all pairs of ring pixels
#define PANEL 32          // number of pivots of a front that are eliminated together
#define TILE 64           // side length of a tile of weights that one block updates
#define PIXELS_PER_BLOCK 1024

// Columns of the table of fronts.
#define FRONT_FIELDS 8
#define START 0       // index of the first pixel of the front in the list of nodes
#define PIVOTS 1      // number of pivots, which are the first pixels
#define SIZE 2        // number of pixels
#define STRIDE 3      // distance between rows of weights; a row contains a weight for each pixel, followed by the slack
#define WORK 4        // index of the front in the memory of its level
#define FACTOR_START 5 // index of the rows of its pivots in the factor
#define FIRST 6       // halves of its rectangle: a front, -2 - cell, or -1
#define SECOND 7

#define GRAPH_PARAMETERS                                                                                            \
    const double *vertical, const double *horizontal, const double *down_right, const double *down_left,              \
        const double *slack, const unsigned char *unknown, const long long depth, const long long lateral

// Advance the pointers of the graph to a frame.
#define SELECT_GRAPH(frame)                                                                                         \
    vertical += (frame) * (depth - 1) * lateral;                                                                      \
    horizontal += (frame) * depth * (lateral - 1);                                                                    \
    down_right += (frame) * (depth - 1) * (lateral - 1);                                                              \
    down_left += (frame) * (depth - 1) * (lateral - 1);                                                               \
    slack += (frame) * depth * lateral;                                                                               \
    unknown += (frame) * depth * lateral;

// Index of the weight between two ring pixels in the update of a cell, which is followed by 32 slacks.
__device__ inline int ring_pair(int first, int second) { return first * (2 * RING - 1 - first) / 2 + second - first - 1; }

// ---------------------------------------------------------------------------------------------------------------------
// Cells, with one block of 32 threads per cell.

extern "C" __global__ void eliminate_cells(GRAPH_PARAMETERS, const long long cells, const int *corners,
                                           const int *rows, const int *columns, const int *row_start,
                                           const int *neighbours, const int *target_start, const short *targets,
                                           const int *edges, const long long edge_count, real *factor, real *pivots,
                                           real *updates, unsigned char *underflowed) {
    __shared__ real weights[CELL_WEIGHTS];
    __shared__ real ratios[RING + CELL_PIXELS];
    __shared__ real slacks[CELL_PIXELS + RING];
    const int lane = threadIdx.x;
    const long long cell = blockIdx.x, frame = blockIdx.z;
    SELECT_GRAPH(frame)
    const long long place = frame * cells + cell;
    factor += place * CELL_FACTOR;
    pivots += place * CELL_PIXELS;
    updates += place * (RING_PAIRS + RING);
    const int top = corners[2 * cell] - 1, left = corners[2 * cell + 1] - 1;

    for (int index = lane; index < CELL_WEIGHTS; index += 32) weights[index] = 0;
    for (int pixel = lane; pixel < CELL_PIXELS + RING; pixel += 32) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        const bool own = pixel < CELL_PIXELS && row < depth && column < lateral;
        slacks[pixel] = own ? (real)(slack[row * lateral + column] * SCALE) : 0;
    }
    __syncthreads();
    for (int edge = lane; edge < edge_count; edge += 32) {
        const int kind = edges[4 * edge + 1];
        const int row = top + edges[4 * edge + 2], column = left + edges[4 * edge + 3];
        double weight = 0;
        if (row >= 0 && column >= 0) {
            if (kind == 0) {
                if (row + 1 < depth && column < lateral) weight = vertical[row * lateral + column];
            } else if (kind == 1) {
                if (row < depth && column + 1 < lateral) weight = horizontal[row * (lateral - 1) + column];
            } else if (row + 1 < depth && column + 1 < lateral) {
                weight = (kind == 2 ? down_right : down_left)[row * (lateral - 1) + column];
            }
        }
        weights[edges[4 * edge]] = (real)(weight * SCALE);
    }
    __syncthreads();

    for (int pixel = 0; pixel < CELL_PIXELS; pixel++) {
        const int begin = row_start[pixel], count = row_start[pixel + 1] - begin;
        // All threads compute this sum, which is as fast as a single thread.
        real total = slacks[pixel];
        for (int index = 0; index < count; index++) total += weights[begin + index];
        const real inverse = total > 0 ? 1 / total : 0;
        for (int index = lane; index < count; index += 32) {
            const real ratio = weights[begin + index] * inverse;
            ratios[index] = ratio > NEGLIGIBLE ? ratio : 0;
            factor[begin + index] = ratios[index];
            slacks[neighbours[begin + index]] += ratios[index] * slacks[pixel];
        }
        if (lane == 0) {
            pivots[pixel] = total > 0 ? (real)(ROOT_SCALE / total) : 0;
            const int row = top + rows[pixel], column = left + columns[pixel];
            if (!(total > 0) && row < depth && column < lateral && unknown[row * lateral + column])
                underflowed[frame] = 1;
        }
        __syncthreads();
        int target = target_start[pixel];
        for (int first = 0; first < count; first++) {
            const real weight = weights[begin + first];
            for (int second = lane; second < count; second += 32)
                if (second > first) weights[targets[target + second - first - 1]] += weight * ratios[second];
            target += count - first - 1;
        }
        __syncthreads();
    }
    for (int index = lane; index < RING_PAIRS; index += 32) updates[index] = weights[CELL_FACTOR + index];
    updates[RING_PAIRS + lane] = slacks[CELL_PIXELS + lane];
}

// Forward substitution: computes z at the pixels of cells, and their contributions to the rings.
extern "C" __global__ void reduce_cells(const double *right, const long long depth, const long long lateral,
                                        const long long cells, const int *corners, const int *rows, const int *columns,
                                        const int *row_start, const int *neighbours, const real *factor,
                                        const real *pivots, const int *skipped, real *solution,
                                        real *ring_contributions) {
    __shared__ real window[CELL_PIXELS + RING];
    const int lane = threadIdx.x;
    const long long cell = blockIdx.x, frame = blockIdx.z;
    if (skipped[frame]) return;
    const long long place = frame * cells + cell;
    factor += place * CELL_FACTOR;
    pivots += place * CELL_PIXELS;
    right += frame * depth * lateral;
    solution += frame * depth * lateral;
    const int top = corners[2 * cell] - 1, left = corners[2 * cell + 1] - 1;
    for (int pixel = lane; pixel < CELL_PIXELS + RING; pixel += 32) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        const bool own = pixel < CELL_PIXELS && row < depth && column < lateral;
        window[pixel] = own ? (real)(right[row * lateral + column] * ROOT_SCALE) : 0;
    }
    __syncthreads();
    for (int pixel = 0; pixel < CELL_PIXELS; pixel++) {
        const int end = row_start[pixel + 1];
        for (int index = row_start[pixel] + lane; index < end; index += 32)
            window[neighbours[index]] += factor[index] * window[pixel];
        __syncthreads();
    }
    for (int pixel = lane; pixel < CELL_PIXELS; pixel += 32) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        if (row < depth && column < lateral) solution[row * lateral + column] = window[pixel] * pivots[pixel];
    }
    ring_contributions[place * RING + lane] = window[CELL_PIXELS + lane];
}

// Backward substitution, after the rings have been solved.
extern "C" __global__ void substitute_cells(const long long depth, const long long lateral, const long long cells,
                                            const int *corners, const int *rows, const int *columns,
                                            const int *row_start, const int *neighbours, const real *factor,
                                            const int *skipped, real *solution) {
    __shared__ real window[CELL_PIXELS + RING];
    __shared__ real held[CELL_FACTOR];
    const int lane = threadIdx.x;
    const long long cell = blockIdx.x, frame = blockIdx.z;
    if (skipped[frame]) return;
    factor += (frame * cells + cell) * CELL_FACTOR;
    solution += frame * depth * lateral;
    const int top = corners[2 * cell] - 1, left = corners[2 * cell + 1] - 1;
    for (int pixel = lane; pixel < CELL_PIXELS + RING; pixel += 32) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        const bool inside = row >= 0 && column >= 0 && row < depth && column < lateral;
        window[pixel] = inside ? solution[row * lateral + column] : 0;
    }
    for (int index = lane; index < CELL_FACTOR; index += 32) held[index] = factor[index];
    __syncthreads();
    for (int pixel = CELL_PIXELS - 1; pixel >= 0; pixel--) {
        real total = window[pixel];
        for (int index = row_start[pixel]; index < row_start[pixel + 1]; index++)
            total += held[index] * window[neighbours[index]];
        __syncthreads();
        if (lane == 0) window[pixel] = total;
        __syncthreads();
    }
    for (int pixel = lane; pixel < CELL_PIXELS; pixel += 32) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        if (row < depth && column < lateral) solution[row * lateral + column] = window[pixel];
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Fronts, which are processed level by level.

// Update of a finished half: the weight between two pixels of its ring, or the slack of the first pixel.
__device__ inline real update_of(const long long child, const int first, const int second, const bool to_slack,
                                 const long long *fronts, const real *below, const real *cell_updates) {
    if (child >= 0) {
        const long long *half = fronts + child * FRONT_FIELDS;
        return below[half[WORK] + first * half[STRIDE] + (to_slack ? half[SIZE] : (long long)second)];
    }
    const real *update = cell_updates + (-2 - child) * (RING_PAIRS + RING);
    if (to_slack) return update[RING_PAIRS + first];
    return first < second ? update[ring_pair(first, second)] : update[ring_pair(second, first)];
}

// Assemble the upper triangles of the fronts of a level from the weights of their pivots and the updates of their
// halves. Blocks have 32 x 4 threads for 16 rows.
extern "C" __global__ void assemble(GRAPH_PARAMETERS, const int *level, const long long *fronts, const int *nodes,
                                    const int *in_first, const int *in_second, const real *below,
                                    const long long below_size, const real *cell_updates, const long long cells,
                                    real *work, const long long work_size) {
    const long long frame = blockIdx.z;
    SELECT_GRAPH(frame)
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int size = (int)front[SIZE];
    below += frame * below_size;
    cell_updates += frame * cells * (RING_PAIRS + RING);
    work += frame * work_size + front[WORK];
    nodes += front[START];
    in_first += front[START];
    in_second += front[START];
    for (int i = blockIdx.y * 16 + threadIdx.y; i < size && i < (int)(blockIdx.y + 1) * 16; i += 4) {
        const int first = in_first[i], second = in_second[i];
        const bool pivot = i < front[PIVOTS];
        const int row = nodes[i] / (int)lateral, column = nodes[i] % (int)lateral;
        for (int j = i + 1 + threadIdx.x; j <= size; j += 32) {
            const bool to_slack = j == size;
            double own = 0;
            if (pivot && to_slack) {
                own = slack[nodes[i]];
            } else if (pivot) {
                const int other_row = nodes[j] / (int)lateral, other_column = nodes[j] % (int)lateral;
                const int down = other_row - row, right = other_column - column;
                if (down >= -1 && down <= 1 && right >= -1 && right <= 1) {
                    const int upper = down < 0 ? other_row : row, leftmost = right < 0 ? other_column : column;
                    if (right == 0) own = vertical[upper * lateral + leftmost];
                    else if (down == 0) own = horizontal[upper * (lateral - 1) + leftmost];
                    else own = (down == right ? down_right : down_left)[upper * (lateral - 1) + leftmost];
                }
            }
            real weight = (real)(own * SCALE);
            if (first >= 0 && (to_slack || in_first[j] >= 0))
                weight += update_of(front[FIRST], first, to_slack ? 0 : in_first[j], to_slack, fronts, below,
                                    cell_updates);
            if (second >= 0 && (to_slack || in_second[j] >= 0))
                weight += update_of(front[SECOND], second, to_slack ? 0 : in_second[j], to_slack, fronts, below,
                                    cell_updates);
            work[i * front[STRIDE] + j] = weight;
        }
    }
}

// Invert the block of the pivots of a panel without subtractions (Grassmann, Taksar and Heyman 1985). The weights of
// the block are replaced by ROOT_SCALE times the inverse. The factor contains the weights of each pivot divided by
// their sum, and ROOT_SCALE divided by this sum on the diagonal. Both are 0 for a pivot without weights, which is a
// known or missing pixel. Blocks have 32 x 4 threads.
extern "C" __global__ void invert_pivots(const unsigned char *unknown, const long long pixels, const int *level,
                                         const long long *fronts, const int *nodes, const long long panel,
                                         real *work, const long long work_size, real *factor,
                                         const long long factor_size, unsigned char *underflowed) {
    __shared__ real block[PANEL][PANEL + 1];  // weights during the elimination, then the inverse
    __shared__ real ratios[PANEL][PANEL + 1]; // weights of each pivot divided by their sum; initially partial sums
    __shared__ real beyond[PANEL];            // sum of the weights to pixels outside the block
    __shared__ real inverses[PANEL];
    const int lane = threadIdx.x, group = threadIdx.y;
    const long long frame = blockIdx.z;
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int begin = (int)panel * PANEL, size = (int)front[SIZE];
    if (begin >= front[PIVOTS]) return;
    const int count = front[PIVOTS] - begin < PANEL ? (int)front[PIVOTS] - begin : PANEL;
    const long long stride = front[STRIDE];
    work += frame * work_size + front[WORK] + begin * stride;
    factor += frame * factor_size + front[FACTOR_START] + begin * stride;

    for (int i = group; i < count; i += 4) {
        real sum = 0;
        for (int j = begin + count + lane; j <= size; j += 32) sum += work[i * stride + j];
        ratios[i][lane] = sum;
        block[i][lane] = lane > i && lane < count ? work[i * stride + begin + lane] : 0;
    }
    __syncthreads();
    if (group == 0 && lane < count) {
        real sum = 0;
        for (int part = 0; part < 32; part++) sum += ratios[lane][part];
        beyond[lane] = sum;
    }
    __syncthreads();

    for (int pivot = 0; pivot < count; pivot++) {
        if (group == 0) {
            real total = beyond[pivot];
            for (int j = pivot + 1; j < count; j++) total += block[pivot][j];
            const real inverse = total > 0 ? 1 / total : 0;
            ratios[pivot][lane] = lane > pivot && lane < count ? block[pivot][lane] * inverse : 0;
            if (lane == 0) {
                inverses[pivot] = total > 0 ? (real)(ROOT_SCALE / total) : 0;
                if (!(total > 0) && unknown[frame * pixels + nodes[front[START] + begin + pivot]])
                    underflowed[frame] = 1;
            }
        }
        __syncthreads();
        for (int i = pivot + 1 + group; i < count; i += 4) {
            const real weight = block[pivot][i];
            if (lane > i && lane < count) block[i][lane] += weight * ratios[pivot][lane];
            if (lane == i) beyond[i] += ratios[pivot][i] * beyond[pivot];
        }
        __syncthreads();
    }
    // Backwards from the last pivot: the ratios are the probabilities of steps from a pivot to later ones.
    for (int pivot = count - 1; pivot >= 0; pivot--) {
        real entry = 0;
        if (group == 0 && lane > pivot && lane < count)
            for (int j = pivot + 1; j < count; j++) entry += ratios[pivot][j] * block[j][lane];
        if (group == 0 && lane > pivot && lane < count) {
            block[pivot][lane] = entry;
            block[lane][pivot] = entry;
        }
        __syncthreads();
        if (group == 0 && lane == 0) {
            real diagonal = inverses[pivot];
            for (int j = pivot + 1; j < count; j++) diagonal += ratios[pivot][j] * block[pivot][j];
            block[pivot][pivot] = diagonal;
        }
        __syncthreads();
    }
    for (int i = group; i < count; i += 4) {
        if (lane >= count) continue;
        work[i * stride + begin + lane] = block[i][lane];
        factor[i * stride + begin + lane] = lane == i ? inverses[i] : ratios[i][lane];
    }
}

// Multiply the inverse of the panel with its weights to later pixels. The results are the probabilities that a random
// walk from a pivot leaves the panel at these pixels. Blocks have 64 x 4 threads for 64 columns.
extern "C" __global__ void multiply_rows(const int *level, const long long *fronts, const long long panel,
                                         const real *work, const long long work_size, real *factor,
                                         const long long factor_size) {
    __shared__ real inverse[PANEL][PANEL];
    __shared__ real weights[PANEL][TILE];
    const int x = threadIdx.x, y = threadIdx.y;
    const long long frame = blockIdx.z;
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int begin = (int)panel * PANEL;
    if (begin >= front[PIVOTS]) return;
    const int count = front[PIVOTS] - begin < PANEL ? (int)front[PIVOTS] - begin : PANEL;
    const int left = begin + count + blockIdx.y * TILE, column = left + x;
    const int last = (int)front[SIZE];
    if (left > last) return;
    const long long stride = front[STRIDE];
    work += frame * work_size + front[WORK] + begin * stride;
    factor += frame * factor_size + front[FACTOR_START] + begin * stride;
    for (int i = y; i < PANEL; i += 4) {
        weights[i][x] = i < count && column <= last ? work[i * stride + column] * (real)(1 / ROOT_SCALE) : 0;
        if (x < PANEL) inverse[i][x] = i < count && x < count ? work[i * stride + begin + x] : 0;
    }
    __syncthreads();
    real sums[PANEL / 4];
    for (int k = 0; k < PANEL / 4; k++) sums[k] = 0;
    for (int j = 0; j < count; j++) {
        const real weight = weights[j][x];
#pragma unroll
        for (int k = 0; k < PANEL / 4; k++) sums[k] += inverse[4 * k + y][j] * weight;
    }
    for (int k = 0; k < PANEL / 4; k++)
        if (4 * k + y < count && column <= last)
            factor[(4 * k + y) * stride + column] = sums[k] > NEGLIGIBLE ? sums[k] : 0;
}

// Update the weights between the remaining pixels: w_ij += sum_p w_pi x_pj. Blocks have 16 x 8 threads for a tile of 64
// x 64 weights. Each thread computes 8 rows and every sixteenth column.
extern "C" __global__ void update(const int *level, const long long *fronts, const long long panel,
                                  const long long tiles, real *work, const long long work_size, const real *factor,
                                  const long long factor_size) {
    alignas(16) __shared__ real weights[PANEL][TILE]; // aligned for vector loads
    __shared__ real ratios[PANEL][TILE];
    const int x = threadIdx.x, y = threadIdx.y, thread = y * 16 + x;
    const long long frame = blockIdx.z;
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int begin = (int)panel * PANEL;
    if (begin >= front[PIVOTS]) return;
    const int count = front[PIVOTS] - begin < PANEL ? (int)front[PIVOTS] - begin : PANEL;
    const int tile_row = blockIdx.y / (int)tiles, tile_column = blockIdx.y % (int)tiles;
    const int size = (int)front[SIZE];
    const int top = begin + count + tile_row * TILE, left = begin + count + tile_column * TILE;
    if (tile_column < tile_row || left >= size) return;
    const long long stride = front[STRIDE];
    work += frame * work_size + front[WORK];
    factor += frame * factor_size + front[FACTOR_START];
    for (int index = thread; index < count * TILE; index += 128) {
        const int pivot = index / TILE, place = index % TILE;
        weights[pivot][place] = top + place < size ? work[(begin + pivot) * stride + top + place] : 0;
        ratios[pivot][place] = left + place < size ? factor[(begin + pivot) * stride + left + place] : 0;
    }
    __syncthreads();
    real sums[8][4];
#pragma unroll
    for (int a = 0; a < 8; a++)
#pragma unroll
        for (int b = 0; b < 4; b++) sums[a][b] = 0;
#pragma unroll 4
    for (int pivot = 0; pivot < count; pivot++) {
        real mine[8], theirs[4];
#pragma unroll
        for (int a = 0; a < 8; a++) mine[a] = weights[pivot][8 * y + a];
#pragma unroll
        for (int b = 0; b < 4; b++) theirs[b] = ratios[pivot][x + 16 * b];
#pragma unroll
        for (int a = 0; a < 8; a++)
#pragma unroll
            for (int b = 0; b < 4; b++) sums[a][b] += mine[a] * theirs[b];
    }
#pragma unroll
    for (int a = 0; a < 8; a++) {
        const int i = top + 8 * y + a;
#pragma unroll
        for (int b = 0; b < 4; b++) {
            const int j = left + x + 16 * b;
            if (j < size && j > i) work[i * stride + j] += sums[a][b];
        }
    }
    // The blocks of the tiles on the diagonal also update the slacks, which are to the right of all tiles.
    if (tile_row == tile_column && thread < TILE && top + thread < size) {
        real sum = 0;
        for (int pivot = 0; pivot < count; pivot++)
            sum += weights[pivot][thread] * factor[(begin + pivot) * stride + size];
        work[(top + thread) * stride + size] += sum;
    }
}

// Contribution of a half to a pixel of its ring in the forward substitution.
__device__ inline real ring_contribution(const long long child, const int place, const long long *fronts,
                                         const real *vectors, const real *ring_contributions) {
    return child >= 0 ? vectors[fronts[child * FRONT_FIELDS + START] + place]
                      : ring_contributions[(-2 - child) * RING + place];
}

// Forward substitution for a level: computes z at the pivots of the fronts, and the contributions to their rings in
// `vectors`. There is one block per front with any number of threads from 32.
extern "C" __global__ void reduce_fronts(const double *right, const long long pixels, const int *level,
                                         const long long *fronts, const int *nodes, const int *in_first,
                                         const int *in_second, const real *factor, const long long factor_size,
                                         const real *ring_contributions, const long long cells, const int *skipped,
                                         real *vectors, const long long vectors_size, real *solution) {
    __shared__ real pivots[PANEL];  // right-hand side of the panel
    __shared__ real sweep[PANEL];   // z of the panel
    __shared__ real block[PANEL][PANEL + 1];
    const int thread = threadIdx.x;
    const long long frame = blockIdx.z;
    if (skipped[frame]) return;
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int size = (int)front[SIZE], eliminated = (int)front[PIVOTS];
    const long long stride = front[STRIDE], start = front[START];
    right += frame * pixels;
    solution += frame * pixels;
    factor += frame * factor_size + front[FACTOR_START];
    ring_contributions += frame * cells * RING;
    vectors += frame * vectors_size;
    real *vector = vectors + start;
    for (int i = thread; i < size; i += blockDim.x) {
        real value = i < eliminated ? (real)(right[nodes[start + i]] * ROOT_SCALE) : 0;
        const int first = in_first[start + i], second = in_second[start + i];
        if (first >= 0) value += ring_contribution(front[FIRST], first, fronts, vectors, ring_contributions);
        if (second >= 0) value += ring_contribution(front[SECOND], second, fronts, vectors, ring_contributions);
        vector[i] = value;
    }
    __syncthreads();
    for (int begin = 0; begin < eliminated; begin += PANEL) {
        const int count = eliminated - begin < PANEL ? eliminated - begin : PANEL;
        const real *rows = factor + begin * stride;
        if (thread < count) pivots[thread] = sweep[thread] = vector[begin + thread];
        for (int index = thread; index < count * PANEL; index += blockDim.x) {
            const int column = index % PANEL;
            if (column < count) block[index / PANEL][column] = rows[index / PANEL * stride + begin + column];
        }
        __syncthreads();
        for (int j = begin + count + thread; j < size; j += blockDim.x) {
            real value = vector[j];
            for (int pivot = 0; pivot < count; pivot++) value += rows[pivot * stride + j] * pivots[pivot];
            vector[j] = value;
        }
        // The block is solved by forward and backward substitution rather than with its inverse. Strongly connected
        // pixels have almost equal values, for which a multiplication with the inverse would have independent rounding
        // errors.
        for (int pivot = 0; pivot < count; pivot++) {
            if (thread > pivot && thread < count) sweep[thread] += block[pivot][thread] * sweep[pivot];
            __syncthreads();
        }
        if (thread < count) sweep[thread] *= block[thread][thread];
        __syncthreads();
        for (int pivot = count - 1; pivot > 0; pivot--) {
            if (thread < pivot) sweep[thread] += block[thread][pivot] * sweep[pivot];
            __syncthreads();
        }
        if (thread < count) solution[nodes[start + begin + thread]] = sweep[thread];
        __syncthreads();
    }
}

// Backward substitution for a level. Blocks have 32 x n threads for any n.
extern "C" __global__ void substitute_fronts(const long long pixels, const int *level, const long long *fronts,
                                             const int *nodes, const real *factor, const long long factor_size,
                                             const int *skipped, real *vectors, const long long vectors_size,
                                             real *solution) {
    __shared__ real parts[PANEL][33];
    const int lane = threadIdx.x, group = threadIdx.y;
    const long long frame = blockIdx.z;
    if (skipped[frame]) return;
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int size = (int)front[SIZE], eliminated = (int)front[PIVOTS];
    const long long stride = front[STRIDE];
    solution += frame * pixels;
    factor += frame * factor_size + front[FACTOR_START];
    nodes += front[START];
    real *vector = vectors + frame * vectors_size + front[START];
    for (int j = group * 32 + lane; j < size; j += 32 * blockDim.y) vector[j] = solution[nodes[j]];
    __syncthreads();
    for (int begin = (eliminated - 1) / PANEL * PANEL; begin >= 0; begin -= PANEL) {
        const int count = eliminated - begin < PANEL ? eliminated - begin : PANEL;
        for (int pivot = group; pivot < count; pivot += blockDim.y) {
            const real *row = factor + (begin + pivot) * stride;
            real sum = 0;
            for (int j = begin + count + lane; j < size; j += 32) sum += row[j] * vector[j];
            parts[pivot][lane] = sum;
        }
        __syncthreads();
        if (group == 0 && lane < count) {
            real value = vector[begin + lane];
            for (int part = 0; part < 32; part++) value += parts[lane][part];
            vector[begin + lane] = value;
            solution[nodes[begin + lane]] = value;
        }
        __syncthreads();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Conjugate gradients in double. Blocks have 256 threads, and process PIXELS_PER_BLOCK pixels if the grid is over pixels.

// Sum the 256 values of a block in a fixed order. The result is valid in thread 0.
__device__ inline double block_sum(double value, double *shared) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

__device__ inline double larger(double first, double second) { return first > second ? first : second; }
__device__ inline double magnitude_of(double value) { return value < 0 ? -value : value; }

// Compute A x as slack_i x_i + sum_j w_ij (x_i - x_j). If the pointers are not null, also compute the sum of the
// absolute values of its terms, and partial sums of the dot product of x and A x.
extern "C" __global__ void multiply(GRAPH_PARAMETERS, const int *skipped, const double *x, double *product,
                                    double *magnitude, double *parts) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z, pixels = depth * lateral;
    if (skipped[frame]) return;
    SELECT_GRAPH(frame)
    x += frame * pixels;
    double dot = 0;
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const long long row = pixel / lateral, column = pixel - row * lateral;
        const bool above = row > 0, below = row + 1 < depth, before = column > 0, after = column + 1 < lateral;
        const long long edge = row * (lateral - 1) + column; // for arrays with lateral - 1 columns
        const long long edge_above = edge - (lateral - 1);
        const double value = x[pixel];
        double flow = slack[pixel] * value, size = magnitude_of(flow);
#define ADD_EDGE(exists, weights, edge, other)                                                                        \
    if (exists) {                                                                                                     \
        const double term = weights[edge] * (value - x[other]);                                                       \
        flow += term;                                                                                                 \
        size += magnitude_of(term);                                                                                   \
    }
        ADD_EDGE(above, vertical, pixel - lateral, pixel - lateral)
        ADD_EDGE(below, vertical, pixel, pixel + lateral)
        ADD_EDGE(before, horizontal, edge - 1, pixel - 1)
        ADD_EDGE(after, horizontal, edge, pixel + 1)
        ADD_EDGE(above && before, down_right, edge_above - 1, pixel - lateral - 1)
        ADD_EDGE(below && after, down_right, edge, pixel + lateral + 1)
        ADD_EDGE(above && after, down_left, edge_above, pixel - lateral + 1)
        ADD_EDGE(below && before, down_left, edge - 1, pixel + lateral - 1)
        product[frame * pixels + pixel] = flow;
        if (magnitude) magnitude[frame * pixels + pixel] = size;
        dot += value * flow;
    }
    if (parts) {
        dot = block_sum(dot, shared);
        if (threadIdx.x == 0) parts[frame * gridDim.x + blockIdx.x] = dot;
    }
}

// Compute partial sums of the dot product of residual and correction, and partial maxima of the correction.
extern "C" __global__ void measure_correction(const long long pixels, const int *skipped, const double *residual,
                                   const real *correction, double *dots, double *largest) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z;
    if (skipped[frame]) return;
    double dot = 0, most = 0;
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const double value = correction[frame * pixels + pixel];
        dot += residual[frame * pixels + pixel] * value;
        most = larger(most, magnitude_of(value));
    }
    dot = block_sum(dot, shared);
    if (threadIdx.x == 0) dots[frame * gridDim.x + blockIdx.x] = dot;
    __syncthreads();
    shared[threadIdx.x] = most;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] = larger(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    if (threadIdx.x == 0) largest[frame * gridDim.x + blockIdx.x] = shared[0];
}

// Columns of the state of the iteration of a frame.
#define STATE_FIELDS 5
#define BEFORE 0   // dot product of residual and correction, of this step and then of the previous one
#define ESTIMATE 1 // estimate of the maximum error
#define KEEP 2     // factor of the previous direction in the next one
#define LENGTH 3   // length of the step
#define UNIT 4     // unit of errors

#define RUNNING 0
#define CONVERGED 1 // the last correction must still be added
#define BROKEN 2

// Check the convergence of every frame. There is one block per frame.
extern "C" __global__ void check_convergence(const long long parts, const double *dots, const double *largest,
                                 const long long step, const double tolerance, const long long relative, double *state,
                                 int *skipped, int *steps) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z;
    if (skipped[frame]) return;
    double dot = 0, most = 0;
    for (long long part = threadIdx.x; part < parts; part += 256) dot += dots[frame * parts + part];
    dot = block_sum(dot, shared);
    if (threadIdx.x > 0) return;
    for (long long part = 0; part < parts; part++) most = larger(most, largest[frame * parts + part]);
    state += frame * STATE_FIELDS;
    steps[frame] = (int)step;
    if (!(dot - dot == 0)) { // infinite or not a number
        skipped[frame] = BROKEN;
        return;
    }
    if (step == 0) state[UNIT] = relative && most > 0 ? most : 1;
    most /= state[UNIT];
    state[ESTIMATE] = most;
    if ((step > 0 && most <= tolerance) || dot <= 0) {
        skipped[frame] = CONVERGED;
        return;
    }
    state[KEEP] = step > 0 ? dot / state[BEFORE] : 0;
    state[BEFORE] = dot;
}

// Compute the next direction, or add the last correction if the frame has converged in this step.
extern "C" __global__ void update_direction(const long long pixels, const long long step, const double *state, const int *skipped,
                                const int *steps, const real *correction, double *direction, double *x) {
    const long long frame = blockIdx.z;
    if (skipped[frame] == BROKEN || (skipped[frame] == CONVERGED && steps[frame] != step)) return;
    const double keep = state[frame * STATE_FIELDS + KEEP];
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const long long place = frame * pixels + pixel;
        if (skipped[frame] == CONVERGED) x[place] += correction[place];
        else direction[place] = correction[place] + keep * direction[place];
    }
}

// Compute the length of the step. There is one block per frame.
extern "C" __global__ void measure_step(const long long parts, const double *dots, double *state, int *skipped) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z;
    if (skipped[frame]) return;
    double dot = 0;
    for (long long part = threadIdx.x; part < parts; part += 256) dot += dots[frame * parts + part];
    dot = block_sum(dot, shared);
    if (threadIdx.x > 0) return;
    if (dot > 0) state[frame * STATE_FIELDS + LENGTH] = state[frame * STATE_FIELDS + BEFORE] / dot;
    else skipped[frame] = BROKEN;
}

// Update the solution and the residual.
extern "C" __global__ void take_step(const long long pixels, const double *state, const int *skipped, const double *direction,
                              const double *product, double *x, double *residual) {
    const long long frame = blockIdx.z;
    if (skipped[frame]) return;
    const double length = state[frame * STATE_FIELDS + LENGTH];
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const long long place = frame * pixels + pixel;
        x[place] += length * direction[place];
        residual[place] -= length * product[place];
    }
}
