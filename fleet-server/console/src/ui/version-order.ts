// The order of versions: part by part, as numbers where both parts are numbers. As the server has it.

export function byVersion(left: string, right: string): number {
  const [lefts, rights] = [left.split("."), right.split(".")];
  const differing = lefts.slice(0, rights.length).map((part, index) => byPart(part, rights[index] ?? "")).find((order) => order !== 0);
  return differing ?? (lefts.length - rights.length || byText(left, right));
}

function byPart(left: string, right: string): number {
  const [isLeftNumber, isRightNumber] = [/^\d+$/.test(left), /^\d+$/.test(right)];
  if (isLeftNumber && isRightNumber) return Number(left) - Number(right);
  if (isLeftNumber !== isRightNumber) return isLeftNumber ? -1 : 1;
  return byText(left, right);
}

function byText(left: string, right: string): number {
  return left < right ? -1 : Number(left > right);
}
