// What is used of noVNC, which comes without types (docs/API.md of its package).
declare module '@novnc/novnc' {
	export default class RFB extends EventTarget {
		constructor(target: HTMLElement, channel: WebSocket);
		background: string;
		scaleViewport: boolean;
		viewOnly: boolean;
		focus(): void;
		disconnect(): void;
		sendCtrlAltDel(): void;
		/** Down and up when `down` is absent. `code` is as in `KeyboardEvent.code`. */
		sendKey(keysym: number, code: string, down?: boolean): void;
	}
}
