// Names that exist outside the modules: of the audio thread, of browsers beyond TypeScript's own lists, and of tests.

/** The scope of the two worklets. */
declare const sampleRate: number;
declare abstract class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(name: string, processor: new () => AudioWorkletProcessor): void;

interface Window {
  /** The call or the page about voices, for tests. */
  avatar?: import("./call.js").Call;
  voices?: object;
  /** Missing in Firefox and Safari. */
  showSaveFilePicker?: (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;
}
