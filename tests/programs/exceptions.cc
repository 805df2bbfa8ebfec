// Exceptions through frames of every kind, virtual calls, templates of the library that call back.
// Exits with 0 if all went right.
#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define KEEP __attribute__((noinline, noclone))

static volatile int sink, failures, destroyed;

static KEEP void check(bool right) {
    if (!right)
        failures = failures + 1;
}

static KEEP int leaf(int a) { return a * 3 + 1; }

struct Guard {
    int a;
    explicit Guard(int a) : a(a) {}
    KEEP ~Guard() { destroyed = destroyed + leaf(a); }
};

struct Base {
    virtual ~Base() = default;
    virtual int run(int a) { return leaf(a); }
};

struct Derived : Base {
    KEEP int run(int a) override { return Base::run(a + 1) + leaf(a); }
};

static KEEP int throws(int a) {
    if (a > 2)
        throw a;
    if (a == 2)
        throw std::runtime_error("two");
    return leaf(a);
}

static KEEP int guarded(int a) {
    Guard first(a);
    Guard second(a + 1);
    return throws(a) + leaf(a);
}

static KEEP int aligned(int a) {
    alignas(64) volatile int kept[16];
    kept[a & 15] = a;
    Guard guard(kept[a & 15]);
    return guarded(a) + kept[a & 15];
}

static KEEP int variable(int a, int size) {
    volatile char *bytes = static_cast<char *>(__builtin_alloca(size));
    bytes[0] = static_cast<char>(a);
    Guard guard(bytes[0]);
    return aligned(a) + bytes[0];
}

static KEEP int catches(int a) {
    try {
        return variable(a, 40 + a);
    } catch (int thrown) {
        return leaf(thrown) + 1000;
    } catch (const std::exception &thrown) {
        return leaf(static_cast<int>(std::string(thrown.what()).size())) + 2000;
    }
}

static KEEP int rethrows(int a) {
    try {
        try {
            return guarded(a);
        } catch (int) {
            sink = leaf(a);
            throw;
        }
    } catch (int thrown) {
        return thrown;
    }
}

static KEEP int calls_back(const std::function<int(int)> &function, int a) { return function(a) + leaf(a); }

int main() {
    check(catches(1) == leaf(1) * 2 + 1 + 1);
    check(catches(5) == leaf(5) + 1000);
    check(catches(2) == leaf(3) + 2000);
    check(rethrows(7) == 7);
    std::unique_ptr<Base> object = std::make_unique<Derived>();
    check(object->run(1) == leaf(2) + leaf(1));
    int captured = 4;
    check(calls_back([captured](int a) { return captured + leaf(a); }, 2) == 4 + 7 + 7);
    std::vector<int> numbers{5, 3, 9, 1, 7, 2};
    std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return leaf(a) < leaf(b); });
    check(numbers.front() == 1 && numbers.back() == 9);
    try {
        sink = numbers.at(17);
        check(false);
    } catch (const std::out_of_range &) {
        check(destroyed > 0);
    }
    return failures;
}
