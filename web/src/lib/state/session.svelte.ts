// Who is signed in and what they may do. The master decides; this only keeps the page from offering refusals.
import type { CurrentSession } from '$lib/api/types';

class SessionState {
	current = $state.raw<CurrentSession | null>(null);

	get user() {
		return this.current?.user ?? null;
	}
	get isAdmin() {
		return this.user?.role === 'admin';
	}
	/** Why this account cannot change VMs; `null` when it can. */
	get operateRefusal(): string | null {
		return this.user?.role === 'viewer' ? 'your account may only look' : null;
	}
	/** Why this account cannot let VMs touch their machine; `null` when it can. */
	get hostRefusal(): string | null {
		return this.isAdmin ? null : 'only admins let VMs touch their machine';
	}
	/** Why this account cannot open terminals; `null` when it can. */
	get terminalRefusal(): string | null {
		return this.user?.terminal ? null : 'your account may not open terminals';
	}
}

export const session = new SessionState();
