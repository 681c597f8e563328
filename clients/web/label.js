// The label in the picture that says what it is.

const TEXT = "synthetic";

/** The label for a picture of this size: {image, x, y} for drawImage. `makeCanvas(width, height)` gives a canvas. */
export function makeLabel(width, height, makeCanvas) {
  const size = Math.max(9, Math.round(Math.min(width, height) / 36)), pad = Math.round(0.7 * size), tall = Math.round(1.7 * size);
  const font = `${size}px ui-sans-serif, system-ui, sans-serif`;
  const measure = makeCanvas(1, 1).getContext("2d");
  measure.font = font;
  const wide = Math.ceil(measure.measureText(TEXT).width) + 2 * pad;
  const image = makeCanvas(wide, tall), context = image.getContext("2d");
  context.fillStyle = "rgb(0 0 0 / 45%)";
  context.beginPath();
  context.roundRect(0, 0, wide, tall, tall / 2);
  context.fill();
  Object.assign(context, { font, fillStyle: "#fff", textBaseline: "middle" });
  context.fillText(TEXT, pad, tall / 2 + size / 20);
  return { image, x: width - wide - pad, y: height - tall - pad };
}
