a.c#include <stdio.h>
#define N 3
typedef struct { int x; } point;
enum e { A, B };
static int f(int a) { return a ? N : 0; }
#ifdef X
int g(void);
#endif
int main(void) { puts("hi"); }
