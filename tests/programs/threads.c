/* Two threads besides the first; with an argument, they end by returning. Exits with 0 if all went
   right. */
#include <pthread.h>
#include <stddef.h>

static int by_returning;
static __thread int own = 3;

static __attribute__((noinline, noclone)) int leaf(int a) { return a * 3 + 1; }

static __attribute__((noinline, noclone)) int recursive(int a) {
    return a == 0 ? own : recursive(a - 1) + leaf(a);
}

static void cleaned(void *argument) { *(int *)argument += 1; }

static void *begin(void *argument) {
    int *number = argument;
    pthread_cleanup_push(cleaned, number);
    own += *number;
    *number = recursive(3) + leaf(*number);
    if (!by_returning)
        pthread_exit(number);
    pthread_cleanup_pop(1);
    return NULL;
}

int main(int argc, char **argv) {
    (void)argv;
    by_returning = argc > 1;
    pthread_t first, second;
    int numbers[2] = {1, 2};
    if (pthread_create(&first, NULL, begin, &numbers[0]) != 0)
        return 1;
    if (pthread_join(first, NULL) != 0 || pthread_create(&second, NULL, begin, &numbers[1]) != 0)
        return 2;
    pthread_join(second, NULL);
    return numbers[0] != 4 + 21 + 4 + 1 || numbers[1] != 5 + 21 + 7 + 1;
}
