/* Control that goes elsewhere than calls and returns do: longjmp, getcontext and setcontext, stacks
   that take turns with swapcontext. Exits with 0 if all went right. */
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>

#define KEEP __attribute__((noinline, noclone))

static volatile int sink, failures;

static KEEP void check(int right) {
    if (!right)
        failures++;
}

static KEEP int leaf(int a) { return a * 3 + 1; }

/* longjmp */
static jmp_buf back;

static KEEP int deep(int a) {
    if (a == 0)
        longjmp(back, leaf(2));
    return deep(a - 1) + leaf(a);
}

static KEEP int jumps(int levels) {
    volatile int kept = levels;
    int value = setjmp(back);
    if (value != 0)
        return value + kept;
    return deep(levels);
}

/* From the very function that called setjmp. */
static KEEP int jumps_in_place(void) {
    volatile int rounds = 0;
    int value = setjmp(back);
    rounds++;
    if (rounds < 3)
        longjmp(back, rounds);
    return value + leaf(rounds);
}

/* setcontext, up the same stack */
static ucontext_t here;

static KEEP int sets(int a) {
    if (a == 0)
        setcontext(&here);
    return sets(a - 1) + leaf(a);
}

static KEEP int gets(void) {
    volatile int rounds = 0;
    getcontext(&here);
    rounds++;
    if (rounds == 1)
        return sets(3);
    return leaf(rounds);
}

/* Two contexts that take turns, one of which ends in the other. */
static ucontext_t main_context, first, second;
static char first_stack[64 * 1024] __attribute__((aligned(16)));
static char second_stack[64 * 1024] __attribute__((aligned(16)));
static int trace;

static KEEP void turn(ucontext_t *from, ucontext_t *to, int digit) {
    trace = trace * 10 + digit;
    sink = leaf(digit);
    swapcontext(from, to);
    sink = leaf(digit + 1);
}

static KEEP int nested(int levels, ucontext_t *from, ucontext_t *to, int digit) {
    if (levels == 0) {
        turn(from, to, digit);
        return leaf(digit);
    }
    return nested(levels - 1, from, to, digit) + leaf(levels);
}

static void first_body(int a, int b) {
    check(a == 7 && b == 8);
    sink = nested(3, &first, &second, 1);
    sink = nested(2, &first, &main_context, 3);
    trace = trace * 10 + 5;
}

static void second_body(void) {
    sink = nested(1, &second, &first, 2);
    sink = leaf(4);
    turn(&second, &main_context, 6);
}

/* A context whose function begins with a call of eight arguments, some of them on the stack. */
static void many(int a, int b, int c, int d, int e, int f, int g, int h) {
    check(a + b + c + d + e + f == 21 && g == 7 && h == 8);
    turn(&first, &main_context, 9);
}

static KEEP void contexts(void) {
    getcontext(&first);
    first.uc_stack.ss_sp = first_stack;
    first.uc_stack.ss_size = sizeof first_stack;
    first.uc_link = &second;
    makecontext(&first, (void (*)(void))first_body, 2, 7, 8);
    getcontext(&second);
    second.uc_stack.ss_sp = second_stack;
    second.uc_stack.ss_size = sizeof second_stack;
    second.uc_link = NULL;
    makecontext(&second, second_body, 0);
    turn(&main_context, &first, 0);
    check(trace == 123);
    turn(&main_context, &first, 4);
    check(trace == 123456);
    /* The first stack is used again. */
    getcontext(&first);
    first.uc_stack.ss_sp = first_stack;
    first.uc_stack.ss_size = sizeof first_stack;
    first.uc_link = NULL;
    makecontext(&first, (void (*)(void))many, 8, 1, 2, 3, 4, 5, 6, 7, 8);
    turn(&main_context, &first, 8);
    check(trace == 12345689);
}

int main(void) {
    check(jumps(0) == 7);
    check(jumps(4) == 11);
    check(jumps_in_place() == 2 + 10);
    check(gets() == 7);
    contexts();
    return failures;
}
