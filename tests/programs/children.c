/* Makes other processes in every way: vfork, whose return address leaves the stack meanwhile, fork,
   posix_spawn, with a signal when they end. Exits with 0 if all went right. */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

static volatile int sink, failures, ended;

static KEEP void check(int right) {
    if (!right)
        failures++;
}

static KEEP int leaf(int a) { return a * 3 + 1; }

static void handler(int signal) {
    ended++;
    sink = leaf(signal);
}

static KEEP int waits(pid_t child) {
    int status = -1;
    if (child <= 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

static KEEP int vforks(void) {
    pid_t child = vfork();
    if (child == 0)
        _exit(leaf(2));
    return waits(child);
}

static KEEP int forks(void) {
    pid_t child = fork();
    if (child == 0)
        _exit(leaf(3));
    return waits(child);
}

static KEEP int spawns(void) {
    char *arguments[] = {"sh", "-c", "exit 13", NULL}, *none[] = {NULL};
    pid_t child = 0;
    if (posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, none) != 0)
        return -3;
    return waits(child);
}

int main(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    check(sigaction(SIGCHLD, &action, NULL) == 0);
    check(vforks() == 7);
    check(forks() == 10);
    check(spawns() == 13);
    check(ended == 3);
    return failures;
}
