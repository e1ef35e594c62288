A.javapackage a.b;
import java.util.*;

/** Doc. */
@Deprecated
public class A<T> extends B implements C {
    int x = 1;
    A() {}
    static <U> U f(U u) throws E { return u; }
    enum D { X, Y; }
    record R(int a) {}
}
interface I { default void f() {} }
