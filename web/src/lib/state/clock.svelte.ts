// The time, ticking once a second for everything that shows an age; stands still while nobody looks.
class Clock {
	now = $state(Date.now());

	constructor() {
		if (typeof window === 'undefined') return;
		setInterval(() => {
			if (!document.hidden) this.now = Date.now();
		}, 1000);
		document.addEventListener('visibilitychange', () => {
			this.now = Date.now();
		});
	}
}

export const clock = new Clock();
