a.h#pragma once
extern "C" { int f(void); }
class A;
