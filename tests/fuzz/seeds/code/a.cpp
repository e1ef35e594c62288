a.cpp#include <vector>
namespace n { template <class T> class A : public B { public: A() = default; int f() const { return 1; } private: T t; }; }
using namespace n;
auto g = [](auto x) -> int { return x; };
int main() { for (auto& x : v) {} }
