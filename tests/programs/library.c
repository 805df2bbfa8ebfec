/* A shared library: functions to be reached through a PLT, thread-local data, a function chosen
   when it is first needed, one that calls back. */
#define KEEP __attribute__((noinline, noclone))

__thread int per_thread = 5;

KEEP int library_leaf(int a) { return a * 3 + 1; }

KEEP int library_calls(int (*callback)(int), int a) { return callback(a) + library_leaf(a); }

KEEP int library_per_thread(int a) {
    per_thread += a;
    return per_thread;
}

static int chosen(int a) { return library_leaf(a) + 1; }
static int not_chosen(int a) { return -a; }

typedef int function(int);

static function *choose(void) {
    int volatile one = 1;
    return one ? chosen : not_chosen;
}

int library_ifunc(int a) __attribute__((ifunc("choose")));

KEEP long library_many(long a, long b, long c, long d, long e, long f, long g, double h, double i) {
    return a + b + c + d + e + f + g + (long)(h + i);
}

/* Through its own PLT, as a tail call. */
KEEP int library_tail(int a) { return library_leaf(a + 1); }
