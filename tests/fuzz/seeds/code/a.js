a.jsimport a from 'b';
export class A extends B { #x = 1; get f() { return `t${this.#x}`; } static g() {} }
export default function f(a, ...b) { return a?.b ?? /re[/]x/g; }
const h = async (x) => { await x; };
