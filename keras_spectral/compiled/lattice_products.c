/* Sums, over the points of lattices, of products of numbers at given distances from the points.

   The Gram matrix of the patches of a convolution sums products of a few numbers over millions of
   positions: matrix products that are too thin for BLAS, of patches that need not be copied.

   Blocks of the result stay in registers while all points are visited. Source: Goto and van de Geijn,
   "Anatomy of high-performance matrix multiplication", ACM Transactions on Mathematical Software
   34, 2008. */

#include "cpu.h"

#define LANES 8
#define ROWS 6
#define AXES 4
#define PLANE 200 /* points of two axes that are worth going through all rows and columns */

typedef double lanes __attribute__((vector_size(8 * LANES)));
typedef double anywhere __attribute__((vector_size(8 * LANES), aligned(8)));

/* Adds the products of some rows and columns. */
INLINE void add_tile(
    const double *a, const double *b, const int64_t *sizes, const int64_t *a_steps,
    const int64_t *b_steps, const int64_t *rows, int n_rows, const int64_t *columns, int n_columns,
    double *found, int64_t width) {
    lanes sums[ROWS] = {{0}};
    for (int64_t n = 0; n < sizes[0]; n++)
        for (int64_t z = 0; z < sizes[1]; z++)
            for (int64_t y = 0; y < sizes[2]; y++) {
                const double *left = a + n * a_steps[0] + z * a_steps[1] + y * a_steps[2];
                const double *right = b + n * b_steps[0] + z * b_steps[1] + y * b_steps[2];
                for (int64_t x = 0; x < sizes[3]; x++, left += a_steps[3], right += b_steps[3])
                    for (int column = 0; column < n_columns; column++) {
                        const lanes values = *(const anywhere *)(right + columns[column]);
                        for (int row = 0; row < n_rows; row++)
                            sums[row * n_columns + column] += left[rows[row]] * values;
                    }
            }
    for (int row = 0; row < n_rows; row++)
        for (int column = 0; column < n_columns; column++)
            *(anywhere *)(found + row * width + column * LANES) += sums[row * n_columns + column];
}

INLINE void add_all(
    const double *a, const double *b, const int64_t *sizes, const int64_t *a_steps,
    const int64_t *b_steps, const int64_t *rows, int64_t n_rows, const int64_t *columns,
    int64_t n_columns, double *found) {
    int64_t row = 0, column = 0;
#define TILE(r, c)                                                                             \
    add_tile(                                                                                  \
        a, b, sizes, a_steps, b_steps, rows + row, r, columns + column, c,                     \
        found + (row * n_columns + column) * LANES, n_columns * LANES)
    for (; row + 6 <= n_rows; row += 6)
        for (column = 0; column < n_columns; column++) TILE(6, 1);
    for (; row + 4 <= n_rows; row += 4)
        for (column = 0; column < n_columns; column++) TILE(4, 1);
    for (; row + 3 <= n_rows; row += 3) {
        for (column = 0; column + 2 <= n_columns; column += 2) TILE(3, 2);
        for (; column < n_columns; column++) TILE(3, 1);
    }
    for (; row < n_rows; row++) {
        for (column = 0; column + 6 <= n_columns; column += 6) TILE(1, 6);
        for (; column < n_columns; column++) TILE(1, 1);
    }
#undef TILE
}

INLINE void add_lattice(
    const double *a, const double *b, const int64_t *sizes, const int64_t *a_steps,
    const int64_t *b_steps, const int64_t *rows, int64_t n_rows, const int64_t *columns,
    int64_t n_columns, double *found) {
    const int64_t plane[] = {1, 1, sizes[2], sizes[3]};
    if (sizes[2] * sizes[3] < PLANE) {
        add_all(a, b, sizes, a_steps, b_steps, rows, n_rows, columns, n_columns, found);
        return;
    }
    for (int64_t n = 0; n < sizes[0]; n++)
        for (int64_t z = 0; z < sizes[1]; z++)
            add_all(
                a + n * a_steps[0] + z * a_steps[1], b + n * b_steps[0] + z * b_steps[1], plane,
                a_steps, b_steps, rows, n_rows, columns, n_columns, found);
}

/* Whether all points of a lattice, and what is read from each on, lie within an array. */
INLINE int is_within(
    int64_t begin, const int64_t *sizes, const int64_t *steps, const int64_t *offsets, int64_t n,
    int64_t more, int64_t length) {
    int64_t first = begin, last = begin, lowest = offsets[0], highest = offsets[0];
    for (int axis = 0; axis < AXES; axis++) {
        if (sizes[axis] < 1) return sizes[axis] == 0; /* none at all */
        const int64_t far = (sizes[axis] - 1) * steps[axis];
        *(far < 0 ? &first : &last) += far;
    }
    for (int64_t place = 1; place < n; place++) {
        if (offsets[place] < lowest) lowest = offsets[place];
        if (offsets[place] > highest) highest = offsets[place];
    }
    return first + lowest >= 0 && last + highest + more < length;
}

INLINE int lattice_products_inline(
    const double *a, int64_t a_length, const double *b, int64_t b_length, int64_t n_lattices,
    const int64_t *a_begins, const int64_t *b_begins, const int64_t *sizes,
    const int64_t *a_steps, const int64_t *b_steps, const int64_t *rows, int64_t n_rows,
    const int64_t *columns, int64_t n_columns, double *found) {
    if (n_rows < 1 || n_columns < 1) return 1;
    for (int64_t number = 0; number < n_lattices; number++) {
        const int64_t *own = sizes + number * AXES;
        if (!is_within(a_begins[number], own, a_steps, rows, n_rows, 0, a_length)) return 1;
        if (!is_within(b_begins[number], own, b_steps, columns, n_columns, LANES - 1, b_length))
            return 1;
    }
    for (int64_t number = 0; number < n_lattices; number++)
        add_lattice(
            a + a_begins[number], b + b_begins[number], sizes + number * AXES, a_steps, b_steps,
            rows, n_rows, columns, n_columns, found + number * n_rows * n_columns * LANES);
    return 0;
}

/* Adds to found[n_lattices][n_rows][n_columns][LANES] the sums, over the points of each lattice, of
   a[point + rows[i]] times the LANES numbers from b[point + columns[j]] on. The points of a lattice
   in a are those from a_begins on, with a_steps between neighbours along each of AXES axes, and
   sizes[n_lattices][AXES] of them; likewise in b. Returns 0, or 1 if any of what would be read lies
   outside of a[a_length] or b[b_length]; then nothing is done. */
FOR_EACH_CPU(
    int, lattice_products,
    (const double *a, int64_t a_length, const double *b, int64_t b_length, int64_t n_lattices,
     const int64_t *a_begins, const int64_t *b_begins, const int64_t *sizes,
     const int64_t *a_steps, const int64_t *b_steps, const int64_t *rows, int64_t n_rows,
     const int64_t *columns, int64_t n_columns, double *found),
    (a, a_length, b, b_length, n_lattices, a_begins, b_begins, sizes, a_steps, b_steps, rows,
     n_rows, columns, n_columns, found))
