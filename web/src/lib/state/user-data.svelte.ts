// What a new VM's first boot is to do: written here, or made from a saved template.
import { api, unwrap } from '$lib/api/client';
import type { CreateVm, SshKey, Template } from '$lib/api/types';

const MOST_BYTES = 64 * 1024;

export class UserData {
	text = $state('');
	templateName = $state('');
	values = $state<Record<string, string>>({});
	ownKeys = $state(true);
	templates = $state.raw<Template[]>([]);
	keys = $state.raw<SshKey[]>([]);

	readonly template = $derived(this.templates.find((one) => one.name === this.templateName) ?? null);
	/** Variables that must be given, as the template has no value for them. */
	readonly missing = $derived(
		this.template?.variables.filter((one) => !one.has_default && !this.values[one.name]).map((one) => one.name) ?? []
	);

	/** Asks for what can be chosen from. Without it one can still write. */
	async load(): Promise<void> {
		const [templates, keys] = await Promise.allSettled([unwrap(api.GET('/api/v1/templates')), unwrap(api.GET('/api/v1/ssh-keys'))]);
		if (templates.status === 'fulfilled') this.templates = templates.value.items;
		if (keys.status === 'fulfilled') this.keys = keys.value.items;
	}

	choose(name: string): void {
		this.templateName = name;
		this.values = {};
	}

	/** What is wrong with it as far as the page can tell. */
	wrong(readsCloudConfig: boolean): string | null {
		if (this.template) {
			if (!readsCloudConfig) return 'this image reads only scripts that begin with #!';
			return this.missing.length > 0 ? `give a value for ${this.missing.join(', ')}` : null;
		}
		const text = this.text.trimStart();
		if (!text) return null;
		if (new TextEncoder().encode(this.text).length > MOST_BYTES) return 'at most 64 KiB';
		if (text.startsWith('#!')) return null;
		if (!readsCloudConfig) return 'this image reads only scripts that begin with #!';
		return text.startsWith('#cloud-config') ? null : 'begin with #cloud-config or #!';
	}

	/** Its part of the request. Values that are empty are the template's own. */
	body(): Pick<CreateVm, 'cloud_init' | 'template' | 'own_ssh_keys'> {
		const given = Object.entries(this.values).filter(([, value]) => value !== '');
		return {
			...(this.template
				? { template: { name: this.template.name, variables: Object.fromEntries(given) } }
				: this.text.trim()
					? { cloud_init: this.text }
					: {}),
			...(this.ownKeys ? {} : { own_ssh_keys: false })
		};
	}

	/** Its part of the command. A secret is asked for in a file: a command line is seen by many. */
	options(): string[] {
		const parts: string[] = [];
		if (this.template) {
			parts.push('--template', this.template.name);
			for (const one of this.template.variables) {
				const value = this.values[one.name];
				if (value) parts.push('--var', one.secret || value.includes('\n') ? `${one.name}=@FILE` : `${one.name}=${value}`);
			}
		} else if (this.text.trim()) parts.push('--cloud-init', 'FILE');
		if (!this.ownKeys) parts.push('--no-ssh-keys');
		return parts;
	}

	/** One text that changes with every part of it: what a refusal was about. */
	readonly mark = $derived(JSON.stringify([this.text, this.templateName, this.values]));
}
