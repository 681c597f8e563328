/** Which way pictures come, and why not drawn here. */
export interface Drawing {
  where: "here" | "server";
  why: string;
}

/** Fields of the message `start` (docs/serve.md); all are optional. */
export interface Start {
  client?: string;
  portrait?: string;
  rate?: number;
  audio_rate?: 16000 | 24000 | 48000;
  latency?: string;
  seed?: number;
  emotion?: Record<string, number>;
  style?: string | number;
  still?: boolean;
  idle?: boolean;
  quality?: number;
}

/** A message of docs/serve.md. */
export type Message = { type: string } & Record<string, unknown>;

/** A frame that has been drawn. */
export interface Shown {
  index: number;
  epoch: number;
  kind: "idle" | "speech" | "transition";
  /** Number of the frame in its utterance; -1 if it is not speech. */
  speechIndex: number;
  /** Milliseconds from when its sound began to be heard until it was chosen to be drawn: 0 to 40 while the page keeps up. */
  late: number;
  /** Milliseconds that drawing took. */
  milliseconds: number;
}

export interface Options {
  /** URL of the server; default: where the page is from. */
  server?: string | URL;
  token?: string;
  start?: Start;
  /** "auto" draws here where that is allowed and fast enough; "here" and "server" allow one way alone. */
  drawing?: "auto" | "here" | "server";
  /** Whether the picture says that it is synthetic; true. */
  label?: boolean;
  /** Median of the first 20 frames beyond which drawing here is too slow; 20. */
  slowMilliseconds?: number;
  /** What GET /api/info answered, if the page has it already. */
  info?: object;
  /** Every message of the server, beginning with "ready". */
  onmessage?(message: Message): void;
  /** At the beginning, and when it changes. */
  ondrawing?(drawing: Drawing): void;
  onshown?(frame: Shown): void;
  /** The connection is over, and nobody here asked for it. */
  onend?(): void;
}

export interface Statistics {
  /** Frames whose time came. */
  due: number;
  /** Frames drawn. */
  shown: number;
  /** Frames whose time came and went without being drawn: the page was slow or hidden. */
  leftOut: number;
  /** How often speech had to wait for the network. */
  dry: number;
  /** How often the player went on with the newest, after a sleep. */
  jumps: number;
  soundBytes: number;
  /** Pictures or motion, with the headers of the frames. */
  pictureBytes: number;
  /** Median of drawing, of the last frames. */
  milliseconds: number;
}

/** The server, or the connection to it, refused. */
export class Refused extends Error {
  code: string;
}

/** An open session. */
export interface Face {
  /** The canvas that shows it. It takes the place of the one that was given: another one after a fall back to pictures. */
  readonly canvas: HTMLCanvasElement;
  readonly drawing: Drawing;
  send(message: Message): void;
  say(text: string, voice?: string): void;
  /** Speech of the portrait, at `start.rate` samples a second. */
  push(samples: Int16Array): void;
  flush(): void;
  /** Drops all speech: it is silent at once. The server answers with "interrupted". */
  interrupt(): void;
  control(changes: Record<string, unknown>): void;
  /** Turns the sound on or off. Browsers ask for a click before. */
  sound(on: boolean): Promise<boolean>;
  /** The portrait repeats what a microphone hears, or listens to it. */
  microphone(mode: "off" | "repeat" | "listen", stream?: MediaStream | null): Promise<void>;
  statistics(): Statistics;
  close(): void;
}

/** Opens a session and shows it in a canvas. Throws `Refused`. */
export function connect(canvas: HTMLCanvasElement, options?: Options): Promise<Face>;

/** Why this browser cannot draw faces; "" if it can. */
export function whyNotHere(): string;

/** Why a server will not have a portrait drawn here; "" if it will. `info`: what GET /api/info answered. */
export function whyNotAllowed(info: object, portrait?: string): string;
