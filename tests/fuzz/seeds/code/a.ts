a.tsimport type { A } from './a';
interface I<T extends object> { f(x: T): void; readonly y?: string }
abstract class C implements I<A> { constructor(private x: number) { super(); } f(x: A): void {} }
enum E { A = 1 }
type U = A | null;
namespace N { export const x = 1 as const; }
