/* Operators that move elements, in both layouts, against index arithmetic. */
#include "run_net.h"

#define COUNT (2 * 8 * 6 * 4)
static const int64_t D[4] = {2, 8, 6, 4};
static float A[COUNT];

static float at(int64_t n, int64_t c, int64_t h, int64_t w)
{
    return A[((n * D[1] + c) * D[2] + h) * D[3] + w];
}

static void unflatten(size_t i, const int64_t *dims, int64_t c[4])
{
    for (size_t k = 4; k-- > 0;) {
        c[k] = (int64_t)(i % (size_t)dims[k]);
        i /= (size_t)dims[k];
    }
}

static void transposes(void **state)
{
    (void)state;
    net_fill(A, COUNT);
    for (int p = 0; p < 256; p++) {
        const int64_t perm[4] = {p & 3, p >> 2 & 3, p >> 4 & 3, p >> 6 & 3};
        if ((1 << perm[0] | 1 << perm[1] | 1 << perm[2] | 1 << perm[3]) != 15)
            continue;
        for (int last = 0; last < 2; last++) {
            net *n = net_start();
            qn_tensor *y = NODE(&n->b, TRANSPOSE, "y", net_input(n, A, last, 4, D));
            set_ints(&n->b, y, "perm", 4, perm);
            net_run(n, NODE(&n->b, NEG, "z", y));
            for (size_t i = 0; i < COUNT; i++) {
                int64_t c[4], s[4];
                unflatten(i, n->result_dims, c);
                for (size_t k = 0; k < 4; k++)
                    s[perm[k]] = c[k];
                net_expect(n, i, -(double)at(s[0], s[1], s[2], s[3]), 0);
            }
            net_end(n);
        }
    }
}

/* Large enough for the blocked paths, every element size. */
static void layout_conversions(void **state)
{
    (void)state;
    static uint8_t src[8 * 9000], dst[8 * 9000], back[8 * 9000];
    for (size_t i = 0; i < sizeof(src); i++)
        src[i] = (uint8_t)net_random(256);
    for (int round = 0; round < 60; round++) {
        const size_t rank = 3 + net_random(3), elem = (size_t)1 << net_random(4);
        int64_t dims[QN_MAX_RANK], strides[QN_MAX_RANK];
        size_t count = 1;
        for (size_t i = 0; i < rank; i++) {
            dims[i] = 1 + (int64_t)net_random(rank == 3 ? 20 : rank == 4 ? 9 : 6);
            count *= (size_t)dims[i];
        }
        qn__convert_layout(NULL, dst, QN_LAYOUT_CHANNELS_LAST, src, QN_LAYOUT_ROW_MAJOR, rank, dims,
                           elem);
        qn__convert_layout(NULL, back, QN_LAYOUT_ROW_MAJOR, dst, QN_LAYOUT_CHANNELS_LAST, rank,
                           dims, elem);
        assert_memory_equal(src, back, count * elem);
        qn__layout_strides(rank, dims, QN_LAYOUT_CHANNELS_LAST, strides);
        for (size_t i = 0; i < count; i++) {
            size_t rest = i, to = 0;
            for (size_t k = rank; k-- > 0;) {
                to += rest % (size_t)dims[k] * (size_t)strides[k];
                rest /= (size_t)dims[k];
            }
            assert_memory_equal(dst + to * elem, src + i * elem, elem);
        }
    }
}

static void slices(void **state)
{
    (void)state;
    net_fill(A, COUNT);
    for (int round = 0; round < 300; round++) {
        int64_t starts[4], ends[4], axes[4], steps[4], first[4];
        for (int k = 0; k < 4; k++) {
            axes[k] = net_random(2) ? k : k - 4;
            steps[k] = (int64_t)(1 + net_random(3)) * (net_random(2) ? 1 : -1);
            first[k] = (int64_t)net_random((uint32_t)D[k]);
            starts[k] = net_random(2) ? first[k] : first[k] - D[k];
            ends[k] = steps[k] > 0 ? INT64_MAX : INT64_MIN;
        }
        net *n = net_start();
        builder *b = &n->b;
        net_run(n, NODE(b, SLICE, "y", net_input(n, A, round & 1, 4, D),
                        build_ints(b, "s", 4, starts), build_ints(b, "e", 4, ends),
                        build_ints(b, "a", 4, axes), build_ints(b, "t", 4, steps)));
        assert_true(n->count > 0);
        for (size_t i = 0; i < n->count; i++) {
            int64_t c[4];
            unflatten(i, n->result_dims, c);
            net_expect(n, i,
                       (double)at(first[0] + c[0] * steps[0], first[1] + c[1] * steps[1],
                                  first[2] + c[2] * steps[2], first[3] + c[3] * steps[3]),
                       0);
        }
        net_end(n);
    }
}

static int64_t reflect(int64_t i, int64_t n)
{
    return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i;
}

static void pads(void **state)
{
    (void)state;
    static const char *const modes[3] = {"constant", "reflect", "edge"};
    const int64_t amounts[8] = {0, 2, 1, 3, 1, -1, 2, 1};
    const float value = 7.5f;
    net_fill(A, COUNT);
    for (int mode = 0; mode < 6; mode++) {
        net *n = net_start();
        builder *b = &n->b;
        qn_tensor *y =
            NODE(b, PAD, "y", net_input(n, A, mode & 1, 4, D), build_ints(b, "p", 8, amounts),
                 build_const(b, "v", QN_DTYPE_F32, &value, 0, NULL));
        assert_true(qn__node_set_string(b->graph, y->producer, "mode", modes[mode / 2]));
        net_run(n, y);
        assert_int_equal(n->count, 3 * 9 * 9 * 8);
        for (size_t i = 0; i < n->count; i++) {
            int64_t c[4];
            unflatten(i, n->result_dims, c);
            bool inside = true;
            for (size_t k = 0; k < 4; k++) {
                c[k] -= amounts[k];
                inside = inside && c[k] >= 0 && c[k] < D[k];
                if (mode / 2 == 1)
                    c[k] = reflect(c[k], D[k]);
                if (mode / 2 == 2)
                    c[k] = c[k] < 0 ? 0 : c[k] >= D[k] ? D[k] - 1 : c[k];
            }
            net_expect(n, i, mode / 2 == 0 && !inside ? 7.5 : (double)at(c[0], c[1], c[2], c[3]),
                       0);
        }
        net_end(n);
    }
}

static void concat_and_split(void **state)
{
    (void)state;
    static float other[COUNT];
    net_fill(A, COUNT);
    net_fill(other, COUNT);
    for (int64_t axis = -4; axis < 4; axis++) {
        for (int mode = 0; mode < 4; mode++) {
            net *n = net_start();
            builder *b = &n->b;
            const size_t k = (size_t)(axis < 0 ? axis + 4 : axis);
            qn_tensor *y = NODE(b, CONCAT, "y", net_input(n, A, mode & 1, 4, D),
                                net_input(n, other, (mode & 2) != 0, 4, D));
            set_int(b, y, "axis", axis);
            /* Split into pieces of 1 and the rest, and give out the rest. */
            qn_node *split = qn__graph_add_node(b->graph, SIZE_MAX, QN_OP_SPLIT, "split", 2, 2);
            const int64_t sizes[2] = {1, 2 * D[k] - 1};
            split->inputs[0] = y;
            split->inputs[1] = build_ints(b, "sizes", 2, sizes);
            for (uint32_t o = 0; o < 2; o++)
                qn__node_set_output(split, o,
                                    qn__graph_add_tensor(b->graph, o ? "rest" : "head",
                                                         qn_type_plain_make(QN_DTYPE_NONE)));
            assert_true(qn__node_set_int(b->graph, split, "axis", axis));
            net_run(n, split->outputs[1]);
            for (size_t i = 0; i < n->count; i++) {
                int64_t c[4];
                unflatten(i, n->result_dims, c);
                c[k]++;
                const bool second = c[k] >= D[k];
                c[k] -= second ? D[k] : 0;
                const size_t from = (size_t)(((c[0] * D[1] + c[1]) * D[2] + c[2]) * D[3] + c[3]);
                net_expect(n, i, (double)(second ? other : A)[from], 0);
            }
            net_end(n);
        }
    }
}

static void gather_tile_expand(void **state)
{
    (void)state;
    net_fill(A, COUNT);
    const int64_t index[4] = {3, 0, -1, 3}, repeats[4] = {2, 1, 3, 2}, two = 2;
    for (int last = 0; last < 2; last++) {
        net *n = net_start();
        qn_tensor *y =
            NODE(&n->b, GATHER, "y", net_input(n, A, last, 4, D), build_ints(&n->b, "i", 4, index));
        set_int(&n->b, y, "axis", 1);
        net_run(n, y);
        for (size_t i = 0; i < n->count; i++) {
            int64_t c[4];
            unflatten(i, n->result_dims, c);
            const int64_t k = index[c[1]];
            net_expect(n, i, (double)at(c[0], k < 0 ? k + 8 : k, c[2], c[3]), 0);
        }
        net_end(n);
        n = net_start();
        y = NODE(&n->b, GATHER, "y", net_input(n, A, last, 4, D),
                 build_const(&n->b, "i", QN_DTYPE_I64, &two, 0, NULL));
        set_int(&n->b, y, "axis", 2);
        net_run(n, y);
        assert_int_equal(n->result_rank, 3);
        for (size_t i = 0; i < n->count; i++)
            net_expect(n, i, (double)A[i / 4 * 24 + 8 + i % 4], 0);
        net_end(n);
        n = net_start();
        net_run(n, NODE(&n->b, TILE, "y", net_input(n, A, last, 4, D),
                        build_ints(&n->b, "r", 4, repeats)));
        assert_int_equal(n->count, COUNT * 12);
        for (size_t i = 0; i < n->count; i++) {
            int64_t c[4];
            unflatten(i, n->result_dims, c);
            net_expect(n, i, (double)at(c[0] % 2, c[1], c[2] % 6, c[3] % 4), 0);
        }
        net_end(n);
    }
    net *n = net_start();
    const int64_t small[3] = {8, 1, 4}, shape[4] = {2, 8, 6, 1};
    net_run(n, NODE(&n->b, EXPAND, "y", net_input(n, A, false, 3, small),
                    build_ints(&n->b, "s", 4, shape)));
    assert_int_equal(n->count, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        net_expect(n, i, (double)A[i / 24 % 8 * 4 + i % 4], 0);
    net_end(n);
}

static void blocks(void **state)
{
    (void)state;
    net_fill(A, COUNT);
    for (int mode = 0; mode < 4; mode++) {
        const bool crd = (mode & 2) != 0;
        net *n = net_start();
        qn_tensor *y = NODE(&n->b, DEPTH_TO_SPACE, "y", net_input(n, A, mode & 1, 4, D));
        set_int(&n->b, y, "blocksize", 2);
        assert_true(qn__node_set_string(n->b.graph, y->producer, "mode", crd ? "CRD" : "DCR"));
        net_run(n, y);
        for (size_t i = 0; i < COUNT; i++) {
            int64_t c[4];
            unflatten(i, n->result_dims, c);
            const int64_t in_block = c[2] % 2 * 2 + c[3] % 2;
            net_expect(n, i,
                       (double)at(c[0], crd ? c[1] * 4 + in_block : in_block * 2 + c[1], c[2] / 2,
                                  c[3] / 2),
                       0);
        }
        net_end(n);
        n = net_start();
        y = NODE(&n->b, SPACE_TO_DEPTH, "y", net_input(n, A, mode & 1, 4, D));
        set_int(&n->b, y, "blocksize", 2);
        net_run(n, y);
        for (size_t i = 0; i < COUNT; i++) {
            int64_t c[4];
            unflatten(i, n->result_dims, c);
            const int64_t block = c[1] / 8;
            net_expect(n, i, (double)at(c[0], c[1] % 8, c[2] * 2 + block / 2, c[3] * 2 + block % 2),
                       0);
        }
        net_end(n);
    }
}

static double source(const char *mode, double x, double in, double out)
{
    const double scale = out / in;
    if (strcmp(mode, "align_corners") == 0)
        return out == 1 ? 0 : x * (in - 1) / (out - 1);
    if (strcmp(mode, "asymmetric") == 0)
        return x / scale;
    if (strcmp(mode, "pytorch_half_pixel") == 0 && out <= 1)
        return 0;
    return (x + 0.5) / scale - 0.5;
}

static double clamp_index(double x, double n)
{
    return x < 0 ? 0 : x > n - 1 ? n - 1 : x;
}

static double linear(const int64_t *c, double y, double x)
{
    const double y0 = floor(y), x0 = floor(x), fy = y - y0, fx = x - x0;
    double sum = 0;
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 2; i++)
            sum += (j ? fy : 1 - fy) * (i ? fx : 1 - fx) *
                   (double)at(c[0], c[1], (int64_t)clamp_index(y0 + j, 6),
                              (int64_t)clamp_index(x0 + i, 4));
    return sum;
}

static void resizes(void **state)
{
    (void)state;
    static const char *const modes[4] = {"half_pixel", "asymmetric", "align_corners",
                                         "pytorch_half_pixel"};
    static const int64_t sizes[4][4] = {{2, 8, 12, 8}, {2, 8, 3, 9}, {2, 8, 6, 1}, {2, 8, 13, 5}};
    net_fill(A, COUNT);
    for (int m = 0; m < 4; m++) {
        for (int s = 0; s < 4; s++) {
            for (int mode = 0; mode < 4; mode++) {
                const bool nearest = (mode & 2) != 0;
                net *n = net_start();
                builder *b = &n->b;
                qn_tensor *y = NODE(b, RESIZE, "y", net_input(n, A, mode & 1, 4, D), NULL, NULL,
                                    build_ints(b, "sizes", 4, sizes[s]));
                qn_node *node = y->producer;
                assert_true(
                    qn__node_set_string(b->graph, node, "mode", nearest ? "nearest" : "linear"));
                assert_true(qn__node_set_string(b->graph, node, "nearest_mode", "floor"));
                assert_true(qn__node_set_string(b->graph, node, "coordinate_transformation_mode",
                                                modes[m]));
                net_run(n, y);
                for (size_t i = 0; i < n->count; i++) {
                    int64_t c[4];
                    unflatten(i, sizes[s], c);
                    double v = source(modes[m], (double)c[2], 6, (double)sizes[s][2]);
                    double h = source(modes[m], (double)c[3], 4, (double)sizes[s][3]);
                    if (nearest) {
                        v = clamp_index(floor(v + 1e-6), 6);
                        h = clamp_index(floor(h + 1e-6), 4);
                        net_expect(n, i, (double)at(c[0], c[1], (int64_t)v, (int64_t)h), 0);
                    } else {
                        net_expect(n, i, linear(c, clamp_index(v, 6), clamp_index(h, 4)), 1e-5);
                    }
                }
                net_end(n);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transposes),       cmocka_unit_test(layout_conversions),
        cmocka_unit_test(slices),           cmocka_unit_test(pads),
        cmocka_unit_test(concat_and_split), cmocka_unit_test(gather_tile_expand),
        cmocka_unit_test(blocks),           cmocka_unit_test(resizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
