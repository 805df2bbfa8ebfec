/* Signals: on the thread's stack and on an alternate one, nested in each other on both, in leaves,
   at faulting instructions, left by return and by longjmp. Exits with 0 if all went right. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

static volatile int sink, failures, depth, deepest, handled;
static char alternate[64 * 1024] __attribute__((aligned(16)));
static sigjmp_buf back;

static KEEP void check(int right) {
    if (!right)
        failures++;
}

static KEEP int leaf(int a) { return a * 3 + 1; }

static KEEP int red_zone(int a) {
    volatile int kept[8];
    for (int i = 0; i < 8; i++)
        kept[i] = a + i;
    return kept[0] + kept[7];
}

static void entered(void) {
    handled++;
    depth++;
    if (depth > deepest)
        deepest = depth;
}

static void plain(int signal) {
    entered();
    sink = leaf(signal) + red_zone(signal);
    depth--;
}

/* For the signals that the oracle sends, at any instruction. */
static void interrupting(int signal) {
    int kept = sink;
    sink = leaf(signal) + red_zone(signal);
    sink = kept;
}

/* Raises the next one from within. */
static void nesting(int signal, siginfo_t *info, void *context) {
    (void)info;
    (void)context;
    entered();
    sink = red_zone(signal);
    if (signal == SIGUSR1)
        raise(SIGUSR2);
    else if (signal == SIGUSR2)
        raise(SIGHUP);
    sink = leaf(signal);
    depth--;
}

/* Goes on behind the instruction that failed. */
static void skipping(int signal, siginfo_t *info, void *context) {
    (void)info;
    ucontext_t *interrupted = context;
    entered();
    sink = leaf(signal);
    interrupted->uc_mcontext.gregs[REG_RIP] += 2;
    depth--;
}

static void leaving(int signal) {
    entered();
    sink = leaf(signal);
    depth--;
    siglongjmp(back, signal);
}

static void install(int signal, void (*handler)(int), void (*with_info)(int, siginfo_t *, void *), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = flags | SA_NODEFER;
    if (with_info) {
        action.sa_sigaction = with_info;
        action.sa_flags |= SA_SIGINFO;
    } else {
        action.sa_handler = handler;
    }
    sigemptyset(&action.sa_mask);
    check(sigaction(signal, &action, NULL) == 0);
}

/* A leaf with data in its red zone is interrupted by its own instruction. Both are two bytes. */
static KEEP int illegal_in_leaf(int a) {
    volatile int kept[8];
    for (int i = 0; i < 8; i++)
        kept[i] = a + i;
    __asm__ volatile("ud2" ::: "memory");
    return kept[0] + kept[7];
}

static KEEP int reads(volatile int *pointer) {
    int value;
    __asm__ volatile("mov (%1), %0" : "=r"(value) : "D"(pointer), "0"(5));
    return value;
}

static KEEP int fault_and_leave(int on) {
    int signal = sigsetjmp(back, on);
    if (signal == 0)
        return *(volatile int *)(uintptr_t)8;
    return signal;
}

static KEEP int divides(int a, int b) {
    if (sigsetjmp(back, 1) == 0)
        return a / b;
    return 42;
}

/* A call through a null pointer. */
static KEEP int calls_nothing(int (*volatile nothing)(int)) {
    if (sigsetjmp(back, 1) == 0)
        return nothing(1) + 1;
    return 43;
}

static KEEP int work(int rounds) {
    int sum = 0;
    for (int i = 0; i < rounds; i++) {
        struct timespec now;
        sum += leaf(i) + red_zone(i);
        clock_gettime(CLOCK_MONOTONIC, &now);
        struct timeval day;
        gettimeofday(&day, NULL);
        char text[32];
        memset(text, i, sizeof text);
        sum += text[3];
        free(malloc((size_t)(i + 1) * 24));
        sum += (int)getppid() == 0;
        _Alignas(64) volatile int kept[16];
        kept[i & 15] = sum;
        sum = kept[i & 15];
    }
    return sum;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 3;
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate, .ss_flags = 0};
    check(sigaltstack(&stack, NULL) == 0);

    install(SIGPROF, interrupting, NULL, SA_RESTART | SA_ONSTACK);
    install(SIGALRM, plain, NULL, SA_RESTART);
    raise(SIGALRM);
    check(handled == 1);

    /* Thread's stack, alternate stack, thread's stack again, and the other way round. */
    install(SIGUSR1, NULL, nesting, 0);
    install(SIGUSR2, NULL, nesting, SA_ONSTACK);
    install(SIGHUP, NULL, nesting, 0);
    raise(SIGUSR1);
    check(handled == 4 && deepest == 3);
    install(SIGUSR1, NULL, nesting, SA_ONSTACK);
    install(SIGUSR2, NULL, nesting, SA_ONSTACK);
    install(SIGHUP, NULL, nesting, SA_ONSTACK);
    kill(getpid(), SIGUSR1);
    check(handled == 7);

    install(SIGILL, NULL, skipping, 0);
    check(illegal_in_leaf(3) == 3 + 10);
    install(SIGILL, NULL, skipping, SA_ONSTACK);
    check(illegal_in_leaf(4) == 4 + 11);
    install(SIGSEGV, NULL, skipping, SA_ONSTACK);
    check(reads((int *)16) == 5);

    for (int on = 0; on < 2; on++) {
        install(SIGSEGV, leaving, NULL, on ? SA_ONSTACK : 0);
        install(SIGFPE, leaving, NULL, on ? SA_ONSTACK : 0);
        check(fault_and_leave(1) == SIGSEGV);
        check(divides(5, sink & 0) == 42);
        check(calls_nothing(NULL) == 43);
    }

    sink = work(rounds);
    install(SIGPROF, interrupting, NULL, SA_RESTART);
    sink = work(rounds);
    return failures;
}
