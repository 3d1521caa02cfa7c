// The command that does the same as a button: shown beside it, so that one learns it.
import { writeSize } from './size';

/** One argument, quoted for a POSIX shell when it needs to be. */
export function quote(argument: string): string {
	return /^[A-Za-z0-9_./:@%+,=-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}

function target(agent: string, vm: string): string {
	return quote(`${agent}/${vm}`);
}

export function infoCommand(agent: string, vm: string): string {
	return `batwa info ${target(agent, vm)}`;
}

export type LaunchArguments = {
	agent: string;
	name: string;
	image: string;
	cpus: number;
	memory: number;
	disk: number;
	/** What else is asked for, word by word. */
	options: string[];
};

export function launchCommand(launch: LaunchArguments): string {
	const parts = [
		`batwa launch ${quote(launch.image)}`,
		`--name ${quote(launch.name)}`,
		...(launch.agent === 'local' ? [] : [`--agent ${quote(launch.agent)}`]),
		`--cpus ${launch.cpus}`,
		`--memory ${writeSize(launch.memory)}`,
		`--disk ${writeSize(launch.disk)}`
	];
	return [...parts, ...launch.options.map(quote)].join(' ');
}

/** The guide's command that starts an agent on another machine. */
export function agentCommand(agent: string, key: string, master: string): string {
	return `batwa agent --agent-id ${quote(agent)} --api-key ${quote(key)} --master-url ${quote(master)} --port 8001`;
}

/** The same on a machine that has nothing yet but a clone of the repository. */
export function quickstartCommand(agent: string, key: string, master: string): string {
	return `scripts/quickstart agent --agent-id ${quote(agent)} --api-key ${quote(key)} --master-url ${quote(master)} --port 8001`;
}

/** Joining with a batwa that is there already. */
export function joinCommand(master: string, token: string): string {
	return `batwa agent join ${quote(master)} ${quote(token)}`;
}
