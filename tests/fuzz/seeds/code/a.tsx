a.tsxconst F = ({ a }: P) => <div className="x">{a && <B {...a} />} text</div>;
export function G() { return <>x</>; }
