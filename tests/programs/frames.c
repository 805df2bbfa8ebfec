/* Frames of every shape that a C compiler makes. Each function is small, runs few instructions, and
   checks its result; the process exits with 0 if all were right. */
#include <alloca.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KEEP __attribute__((noinline, noclone))

static volatile int sink;
static int failures;

static KEEP void check(int right) {
    if (!right)
        failures++;
}

/* A leaf with nothing on the stack, one in the red zone. */
static KEEP int leaf(int a) { return a * 3 + 1; }

static KEEP int red_zone(int a) {
    volatile int kept[8];
    for (int i = 0; i < 8; i++)
        kept[i] = a + i;
    return kept[0] + kept[7];
}

/* Every callee-saved register is pushed and popped. */
static KEEP int many_saved(int a, int b, int c, int d, int e, int f) {
    int u = leaf(a), v = leaf(b), w = leaf(c), x = leaf(d), y = leaf(e), z = leaf(f);
    return u + v * 2 + w * 3 + x * 5 + y * 7 + z * 11 + leaf(u ^ v ^ w) + a + b + c + d + e + f;
}

/* Arguments on the stack: the caller adjusts sp around the call. */
static KEEP long stack_arguments(long a, long b, long c, long d, long e, long f, long g, long h, long i) {
    return a + b + c + d + e + f + g * h - i;
}

static KEEP long calls_with_stack_arguments(long a) {
    long first = stack_arguments(a, 2, 3, 4, 5, 6, 7, 8, 9);
    return first + stack_arguments(first, a, a, a, a, a, a, a, leaf((int)a));
}

struct big {
    long words[12];
};

static KEEP long by_value(struct big big, int which) { return big.words[which] + big.words[11 - which]; }

static KEEP struct big returned(long a) {
    struct big big;
    for (int i = 0; i < 12; i++)
        big.words[i] = a + i;
    return big;
}

static KEEP int variadic(int count, ...) {
    va_list list;
    va_start(list, count);
    int sum = 0;
    for (int i = 0; i < count; i++)
        sum += va_arg(list, int);
    va_end(list);
    return sum + leaf(count);
}

/* An early return before anything is saved, and epilogues in the middle with code after them. */
static KEEP int shrink_wrapped(int a) {
    if (a < 0)
        return -1;
    int kept = leaf(a);
    return kept + leaf(a + 1) + kept * 2;
}

static KEEP int several_epilogues(int a) {
    int first = leaf(a), second = leaf(a + 2);
    if (first & 1) {
        if (second > 100)
            return first;
        sink = second;
        return leaf(first) + second;
    }
    int third = leaf(second);
    if (third & 4)
        return third + first + second;
    return leaf(third + first) - second;
}

static KEEP int switched(int a) {
    switch (a) {
    case 0: return leaf(1);
    case 1: return leaf(2) + 1;
    case 2: sink = 3; return 3;
    case 3: return leaf(a) * leaf(4);
    case 4: return red_zone(4);
    case 5: sink = a; return leaf(sink);
    default: return -a;
    }
}

/* Tail calls: with a frame to take down first, to another function, through a pointer. */
static KEEP int tail_callee(int a) { return red_zone(a) + 1; }

static KEEP int tail_call(int a) {
    int kept = leaf(a);
    sink = kept + leaf(kept);
    return tail_callee(kept);
}

static KEEP int tail_pointer(int (*callee)(int), int a) {
    sink = leaf(a) + leaf(a + 1);
    return callee(a);
}

static KEEP int tail_recursion(int a, int sum) { return a == 0 ? sum : tail_recursion(a - 1, sum + leaf(a)); }

/* Stacks whose size is not known before. */
static KEEP int with_alloca(int size) {
    unsigned char *bytes = alloca((size_t)size);
    memset(bytes, 7, (size_t)size);
    int sum = leaf(bytes[size - 1]);
    for (int i = 0; i < 2; i++) {
        volatile char *more = alloca(16);
        more[0] = (char)i;
        sum += leaf(more[0]);
    }
    return sum;
}

static KEEP int with_array(int size) {
    int array[size];
    for (int i = 0; i < size; i++)
        array[i] = leaf(i);
    return array[size / 2] + array[size - 1];
}

/* Realigned stacks: the CFA is found through %rbp, %r10 and what they point to. */
typedef int vector32 __attribute__((vector_size(32)));
typedef int vector64 __attribute__((vector_size(64)));

static KEEP int touch(void *pointer, size_t alignment) { return (uintptr_t)pointer % alignment == 0; }

static KEEP int aligned_32(int a) {
    _Alignas(32) volatile int kept[8];
    kept[3] = a;
    check(touch((void *)kept, 32));
    return kept[3] + leaf(a);
}

static KEEP int aligned_64(int a, int b) {
    _Alignas(64) volatile int kept[16];
    kept[a & 15] = b;
    check(touch((void *)kept, 64));
    int u = leaf(a), v = leaf(b), w = leaf(a + b);
    return kept[a & 15] + leaf(u) + v * w;
}

/* Stack arguments and realignment: a pointer to the arguments is kept (DRAP). */
static KEEP long aligned_with_stack_arguments(long a, long b, long c, long d, long e, long f, long g, long h) {
    _Alignas(64) volatile long kept[8];
    kept[1] = g;
    check(touch((void *)kept, 64));
    return kept[1] + h + stack_arguments(a, b, c, d, e, f, g, h, leaf((int)a));
}

/* Realignment and a stack of unknown size: one more register is needed for the frame. */
static KEEP int aligned_with_alloca(int a, int size) {
    _Alignas(64) volatile int kept[16];
    kept[2] = a;
    volatile unsigned char *bytes = alloca((size_t)size);
    bytes[0] = 1;
    bytes[size - 1] = 2;
    check(touch((void *)kept, 64));
    return kept[2] + bytes[0] + bytes[size - 1] + leaf(size);
}

static KEEP int aligned_variadic(int count, ...) {
    _Alignas(32) volatile int kept[8];
    va_list list;
    va_start(list, count);
    for (int i = 0; i < count; i++)
        kept[i & 7] = va_arg(list, int);
    va_end(list);
    check(touch((void *)kept, 32));
    return kept[0] + kept[1] + leaf(count);
}

static KEEP int aligned_early_return(int a) {
    if (a == 0)
        return 17;
    _Alignas(64) volatile int kept[16];
    kept[a & 15] = a;
    check(touch((void *)kept, 64));
    return kept[a & 15] + 1;
}

static KEEP int vectors(int a) {
    vector32 x = {a, a, a, a, a, a, a, a};
    volatile vector32 y = x + x;
    volatile vector64 z = {a, 2, 3};
    int first = leaf(y[0]);
    check(touch((void *)&y, 32) && touch((void *)&z, 64));
    return first + y[7] + z[1];
}

/* Frames whose size needs more than 16, more than 20 bits. */
static KEEP int frame_64k(int a) {
    volatile char kept[0x10010];
    kept[0] = kept[0x10000] = (char)a;
    return leaf(kept[0] + kept[0x10000]);
}

static KEEP int frame_1m(int a) {
    volatile char kept[0x100040];
    kept[0] = kept[0x100000] = (char)a;
    return leaf(kept[0] + kept[0x100000]);
}

/* Recursion, direct and mutual. */
static KEEP int fibonacci(int a) { return a < 2 ? a : fibonacci(a - 1) + fibonacci(a - 2); }

static KEEP int odd(int a);
static KEEP int even(int a) { return a == 0 ? 1 : odd(a - 1) + 2; }
static KEEP int odd(int a) { return a == 0 ? 0 : even(a - 1) + 3; }

/* Calls back out of a library. */
static int compared;

static int compare(const void *a, const void *b) {
    compared++;
    return *(const int *)a - *(const int *)b;
}

static KEEP int sorts(void) {
    int numbers[] = {5, 3, 9, 1, 7, 2};
    qsort(numbers, 6, sizeof *numbers, compare);
    int key = 7, *found = bsearch(&key, numbers, 6, sizeof *numbers, compare);
    return found && *found == 7 && numbers[0] == 1 && numbers[5] == 9;
}

static int order;
static void at_exit_first(void) { order = order * 10 + leaf(1); }
static void at_exit_second(void) { order = order * 10 + leaf(2); }

__attribute__((constructor)) static void constructed(void) { order = leaf(0) - 1; }

/* A call that does not come back is the last instruction of its function. */
static void (*go_on)(void);

__attribute__((noreturn, noinline, noclone)) static void leaves(int a) {
    check(a == 4);
    go_on();
    exit(failures);
}

static KEEP int never_back(int a) {
    if (a > 3)
        leaves(a);
    return leaf(a);
}

static KEEP int big_arguments(void) { return by_value(returned(5), 3) == 8 + 13; }

static KEEP void library(void) {
    char text[64];
    check(strlen(strcpy(text, "thirteen bytes")) == 14);
    check(memcmp(text, "thirteen", 8) == 0 && strchr(text, 'b') != NULL);
    char *copy = malloc(100);
    memcpy(copy, text, 15);
    copy = realloc(copy, 2000);
    check(strtol("0x1f", NULL, 16) == 31 && copy[0] == 't');
    free(copy);
    free(calloc(3, 5));
}

int main(void) {
    go_on = at_exit_first;
    check(leaf(2) == 7);
    check(red_zone(1) == 9);
    check(many_saved(1, 2, 3, 4, 5, 6) == 4 + 14 + 30 + 65 + 112 + 209 + leaf(4 ^ 7 ^ 10) + 21);
    check(calls_with_stack_arguments(1) != 0);
    check(big_arguments());
    check(variadic(3, 10, 20, 30) == 70);
    check(shrink_wrapped(-5) == -1 && shrink_wrapped(1) == 4 + 7 + 8);
    for (int a = 0; a < 6; a++) {
        sink = several_epilogues(a * 7);
        sink = switched(a + 1);
    }
    check(several_epilogues(40) != 0);
    check(switched(0) == 4 && switched(9) == -9);
    check(tail_call(1) == red_zone(4) + 1);
    check(tail_pointer(tail_callee, 3) == red_zone(3) + 1);
    check(tail_recursion(4, 0) == 13 + 10 + 7 + 4);
    check(with_alloca(100) == 22 + 1 + 4 && with_alloca(5000) == 27);
    check(with_array(9) == leaf(4) + leaf(8));
    check(aligned_32(1) == 5);
    check(aligned_64(2, 3) == 3 + leaf(7) + 10 * 16);
    check(aligned_with_stack_arguments(1, 2, 3, 4, 5, 6, 7, 8) != 0);
    check(aligned_with_alloca(1, 40) == 1 + 3 + leaf(40));
    check(aligned_variadic(2, 4, 5) == 9 + 7);
    check(aligned_early_return(0) == 17 && aligned_early_return(2) == 3);
    check(vectors(2) == 13 + 4 + 2);
    check(frame_64k(3) == 19 && frame_1m(4) == 25);
    check(fibonacci(6) == 8);
    check(even(5) == odd(4) + 2);
    check(sorts() && compared > 0);
    library();
    atexit(at_exit_second);
    check(order == 0 && failures == 0);
    sink = never_back(2);
    return never_back(4);
}
