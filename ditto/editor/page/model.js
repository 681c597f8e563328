// The edit: a timeline as the server reads and writes it, what is selected in it, and the steps back and forward.

const FRAME = 0.04; // seconds
const MOST_STEPS = 200;

const copy = (value) => JSON.parse(JSON.stringify(value));
const round = (value, digits) => Number(value.toFixed(digits));

export class Model extends EventTarget {
  #past = [];
  #future = [];
  #gesture = null;

  /**
   * @param {object} timeline as of docs/timeline.md
   * @param {Record<string, {neutral: number, low: number, high: number}>} controls by name
   */
  constructor(timeline, controls) {
    super();
    this.controls = controls;
    this.timeline = this.#complete(timeline);
    this.layer = this.#firstLayer();
    this.saved = this.text;
  }

  get text() {
    return JSON.stringify(this.timeline);
  }

  get isSaved() {
    return this.saved === this.text;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  get layers() {
    return this.timeline.layers;
  }

  /** The keyframes of a control in a layer: a number that holds, a list, or undefined. */
  values(name, layer = this.layer) {
    return this.layers[layer].controls[name];
  }

  /** Neutral value and range of a control in a layer. */
  range(name, layer = this.layer) {
    const { neutral, low, high } = this.controls[name];
    return this.layers[layer].mode === "multiply" ? { neutral: 1, low: 0, high: 4 } : { neutral, low, high };
  }

  /** Its value at a time, straight between keyframes; the picture has the exact one. */
  at(name, seconds, layer = this.layer) {
    const values = this.values(name, layer);
    if (values === undefined) return this.range(name, layer).neutral;
    if (typeof values === "number") return values;
    const next = values.findIndex(([time]) => time > seconds);
    if (next === 0) return values[0][1];
    if (next < 0) return values[values.length - 1][1];
    const [[from, before], [to, after]] = [values[next - 1], values[next]];
    return before + ((seconds - from) / (to - from)) * (after - before);
  }

  /** The index of the keyframe within half a frame of a time, or -1. */
  keyAt(name, seconds, layer = this.layer) {
    const values = this.values(name, layer);
    return Array.isArray(values) ? values.findIndex(([time]) => Math.abs(time - seconds) < FRAME / 2) : -1;
  }

  /** Set a control at a time: the number that holds, or a keyframe of a control that has keyframes. */
  set(name, value, seconds) {
    const { low, high, neutral } = this.range(name);
    const number = round(Math.min(Math.max(value, low), high), 5);
    this.change(() => {
      const controls = this.layers[this.layer].controls;
      if (!Array.isArray(controls[name])) {
        if (number === neutral) delete controls[name];
        else controls[name] = number;
        return;
      }
      this.#put(name, seconds, number);
    });
  }

  /** Add or remove the keyframe at a time; the first one turns a number that holds into keyframes. */
  toggleKey(name, seconds) {
    this.change(() => {
      const controls = this.layers[this.layer].controls;
      const index = this.keyAt(name, seconds);
      if (index < 0) {
        const value = round(this.at(name, seconds), 5);
        if (!Array.isArray(controls[name])) controls[name] = [];
        this.#put(name, seconds, value);
        return;
      }
      controls[name].splice(index, 1);
      if (!controls[name].length) delete controls[name];
    });
  }

  /** Move a keyframe; it stays between its neighbours. Gives its time. */
  moveKey(layer, name, index, seconds, value) {
    let time = seconds;
    this.change(() => {
      const keys = this.layers[layer].controls[name];
      const { low, high } = this.range(name, layer);
      const [least, most] = [keys[index - 1]?.[0] ?? -Infinity, keys[index + 1]?.[0] ?? Infinity];
      time = round(Math.max(0, Math.min(Math.max(seconds, least + FRAME), most - FRAME)), 3);
      keys[index][0] = time;
      if (value !== undefined) keys[index][1] = round(Math.min(Math.max(value, low), high), 5);
    });
    return time;
  }

  removeKey(layer, name, index) {
    this.change(() => {
      const controls = this.layers[layer].controls;
      controls[name].splice(index, 1);
      if (!controls[name].length) delete controls[name];
    });
  }

  setEase(layer, name, index, ease) {
    this.change(() => {
      const key = this.layers[layer].controls[name][index];
      if (ease === "smooth") key.length = 2;
      else key[2] = ease;
    });
  }

  clear(name, layer = this.layer) {
    this.change(() => delete this.layers[layer].controls[name]);
  }

  addEvent(event) {
    this.change(() => {
      this.timeline.events.push(event);
      this.timeline.events.sort((a, b) => a.at - b.at);
    });
  }

  removeEvent(index) {
    this.change(() => this.timeline.events.splice(index, 1));
  }

  addLayer() {
    this.change(() => this.layers.push({ name: `layer ${this.layers.length + 1}`, controls: {} }));
    this.layer = this.layers.length - 1;
    this.#tell();
  }

  removeLayer(index) {
    this.change(() => {
      this.layers.splice(index, 1);
      if (!this.layers.length) this.layers.push({ name: "edit", controls: {} });
    });
  }

  setLayer(index, changes) {
    this.change(() => {
      const layer = this.layers[index];
      for (const [key, value] of Object.entries(changes)) {
        if (value === null || value === "") delete layer[key];
        else layer[key] = value;
      }
    });
  }

  select(layer) {
    this.layer = layer;
    this.#tell();
  }

  /** Everything until `end` is one step of undo. */
  begin() {
    this.#gesture ??= this.text;
  }

  end() {
    const before = this.#gesture;
    this.#gesture = null;
    if (before !== null && before !== this.text) this.#step(before);
    this.#tell();
  }

  change(edit) {
    const before = this.text;
    edit();
    if (this.text === before) return;
    if (this.#gesture === null) this.#step(before);
    this.layer = Math.min(this.layer, this.layers.length - 1);
    this.#tell();
  }

  undo() {
    if (!this.canUndo) return;
    this.#future.push(this.text);
    this.#restore(this.#past.pop());
  }

  redo() {
    if (!this.canRedo) return;
    this.#past.push(this.text);
    this.#restore(this.#future.pop());
  }

  /** Take another timeline, as one step of undo. */
  load(timeline, saved = false) {
    this.change(() => (this.timeline = this.#complete(timeline)));
    this.layer = this.#firstLayer();
    if (saved) this.saved = this.text;
    this.#tell();
  }

  markSaved(text) {
    this.saved = text;
    this.#tell();
  }

  #step(before) {
    this.#past.push(before);
    if (this.#past.length > MOST_STEPS) this.#past.shift();
    this.#future = [];
  }

  #restore(text) {
    this.timeline = JSON.parse(text);
    this.layer = Math.min(this.layer, this.layers.length - 1);
    this.#tell();
  }

  #put(name, seconds, value) {
    const keys = this.layers[this.layer].controls[name];
    const index = this.keyAt(name, seconds);
    if (index >= 0) keys[index][1] = value;
    else keys.push([round(seconds, 3), value]);
    keys.sort((a, b) => a[0] - b[0]);
  }

  #complete(timeline) {
    const whole = copy(timeline);
    whole.layers ??= [];
    whole.events ??= [];
    for (const layer of whole.layers) layer.controls ??= {};
    if (!whole.layers.some((layer) => (layer.mode ?? "add") === "add")) whole.layers.push({ name: "edit", controls: {} });
    return whole;
  }

  #firstLayer() {
    const adding = this.layers.findIndex((layer) => (layer.mode ?? "add") === "add");
    return Math.max(adding, 0);
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

export { FRAME, round };
