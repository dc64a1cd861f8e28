/* Eigenvalues of many small symmetric matrices of one size: one matrix in each SIMD lane.

   LAPACK solves matrices one by one, and for small ones most of its time is spent waiting for the
   last division. Here several matrices undergo the same operations side by side: Householder reduction to
   tridiagonal form, then QL iterations without square roots.

   Source: Golub and Van Loan, "Matrix Computations", 4th edition, section 8.3.1 (reduction);
   Parlett, "The Symmetric Eigenvalue Problem", section 8.15 (the QL variant of Pal, Walker and
   Kahan). */

#include "cpu.h"

#define LANES 16
#define LARGEST 128       /* rows and columns */
#define NEGLIGIBLE 1e-34  /* square of an off-diagonal element of a matrix of trace 1 */
#define TINY 1e-200       /* keeps divisors away from zero */
#define SWEEPS 60         /* for one eigenvalue; two are usual */

#define AT(i, j) a[(i) * ((i) + 1) / 2 + (j)] /* of a lower triangle */

typedef double lanes __attribute__((vector_size(8 * LANES)));
typedef int64_t flags __attribute__((vector_size(8 * LANES)));

INLINE lanes where(flags condition, lanes yes, lanes no) {
    return (lanes)((condition & (flags)yes) | (~condition & (flags)no));
}

INLINE lanes root(lanes x) {
    lanes found;
    for (int lane = 0; lane < LANES; lane++) found[lane] = __builtin_sqrt(x[lane]);
    return found;
}

INLINE int any(flags condition) {
    int64_t found = 0;
    for (int lane = 0; lane < LANES; lane++) found |= condition[lane];
    return found != 0;
}

/* Householder reduction of the lower triangles a, which it destroys, to diagonal and squared
   off-diagonal elements. */
INLINE void tridiagonal(lanes *a, int d, lanes *diagonal, lanes *squared) {
    const lanes zero = {0}, one = zero + 1.0;
    lanes v[LARGEST], w[LARGEST];
    for (int k = 0; k < d; k++) {
        diagonal[k] = AT(k, k);
        if (k == d - 1) break;
        lanes below = zero;
        for (int i = k + 2; i < d; i++) below += AT(i, k) * AT(i, k);
        const lanes first = AT(k + 1, k), total = first * first + below;
        squared[k] = total;
        if (k == d - 2) continue;
        const lanes length = root(total), beta = where(first > 0, -length, length);
        const flags reflects = below > TINY;
        const lanes scale = where(reflects, one / where(reflects, first - beta, one), zero);
        const lanes tau = where(reflects, (beta - first) / where(reflects, beta, one), zero);
        v[k + 1] = one;
        for (int i = k + 2; i < d; i++) v[i] = AT(i, k) * scale;
        for (int i = k + 1; i < d; i++) w[i] = zero;
        for (int i = k + 1; i < d; i++) {
            lanes sum = AT(i, i) * v[i];
            for (int j = k + 1; j < i; j++) {
                sum += AT(i, j) * v[j];
                w[j] += AT(i, j) * v[i];
            }
            w[i] += sum;
        }
        lanes inner = zero;
        for (int i = k + 1; i < d; i++) inner += w[i] * v[i];
        const lanes half = 0.5 * tau * tau * inner;
        for (int i = k + 1; i < d; i++) w[i] = tau * w[i] - half * v[i];
        for (int i = k + 1; i < d; i++)
            for (int j = k + 1; j <= i; j++) AT(i, j) -= v[i] * w[j] + w[i] * v[j];
    }
}

/* Turns the diagonal into eigenvalues. Returns whether all were found. */
INLINE int ql(lanes *diagonal, lanes *squared, int d) {
    const lanes zero = {0}, one = zero + 1.0;
    for (int l = 0; l < d - 1; l++) {
        for (int sweep = 0;; sweep++) {
            const flags live = squared[l] > NEGLIGIBLE;
            if (!any(live)) break;
            if (sweep == SWEEPS) return 0;
            const lanes offset = root(where(live, squared[l], one));
            const lanes ratio = (diagonal[l + 1] - diagonal[l]) / (2.0 * offset);
            const lanes long_side = root(ratio * ratio + 1.0);
            const lanes shift =
                diagonal[l] - offset / (ratio + where(ratio < 0, -long_side, long_side));
            lanes c = one, s = zero, gamma = diagonal[d - 1] - shift, p = gamma * gamma;
            for (int i = d - 2; i >= l; i--) {
                const lanes b = where(squared[i] > TINY, squared[i], zero + TINY);
                const lanes r = p + b, inverse = one / r;
                if (i < d - 2) squared[i + 1] = where(live, s * r, squared[i + 1]);
                const lanes old_c = c, old_gamma = gamma, alpha = diagonal[i];
                c = p * inverse;
                s = b * inverse;
                gamma = c * (alpha - shift) - s * old_gamma;
                diagonal[i + 1] = where(live, old_gamma + (alpha - gamma), diagonal[i + 1]);
                const flags divides = c > TINY;
                p = where(divides, gamma * gamma / where(divides, c, one), old_c * b);
            }
            squared[l] = where(live, s * p, squared[l]);
            diagonal[l] = where(live, shift + gamma, diagonal[l]);
        }
    }
    return 1;
}

INLINE int eigenvalues_inline(const double *matrices, int64_t n, int64_t d, double *found) {
    static _Thread_local lanes a[LARGEST * (LARGEST + 1) / 2];
    lanes diagonal[LARGEST], squared[LARGEST];
    if (n < 0 || d < 1 || d > LARGEST) return 1;
    for (int64_t first = 0; first < n; first += LANES) {
        const double *own[LANES];
        lanes scale; /* their traces, or 1 */
        for (int lane = 0; lane < LANES; lane++) {
            const int64_t place = first + lane < n ? first + lane : n - 1;
            double trace = 0;
            own[lane] = matrices + place * d * d;
            for (int i = 0; i < d; i++) trace += own[lane][i * d + i];
            scale[lane] = trace > 0 ? trace : 1;
        }
        for (int i = 0; i < d; i++)
            for (int j = 0; j <= i; j++) {
                for (int lane = 0; lane < LANES; lane++) AT(i, j)[lane] = own[lane][i * d + j];
                AT(i, j) /= scale;
            }
        tridiagonal(a, d, diagonal, squared);
        if (!ql(diagonal, squared, d)) return 1;
        for (int i = 0; i < d; i++) {
            const lanes values = diagonal[i] * scale;
            for (int lane = 0; lane < LANES && first + lane < n; lane++)
                found[(first + lane) * d + i] = values[lane];
        }
    }
    return 0;
}

/* Finds the eigenvalues, in no order, of n positive semidefinite matrices [d, d], of which lower
   triangles are read; d is at most LARGEST. Returns 0, or 1 if some were not found. */
FOR_EACH_CPU(
    int, eigenvalues, (const double *matrices, int64_t n, int64_t d, double *found),
    (matrices, n, d, found))
