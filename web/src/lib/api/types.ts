// The wire types under short names; what they mean is written at the types of `batwa-api`.
import type { components } from './schema';

type Schemas = components['schemas'];

export type Agent = Schemas['Agent'];
export type AgentKey = Schemas['AgentKey'];
export type AgentStatus = Schemas['AgentStatus'];
export type AuditEntry = Schemas['AuditEntry'];
export type ByteSize = Schemas['ByteSize'];
export type CreateVm = Schemas['CreateVm'];
export type CurrentSession = Schemas['CurrentSession'];
export type DriverStatus = Schemas['DriverStatus'];
export type Event = Schemas['Event'];
export type FieldError = Schemas['FieldError'];
export type Image = Schemas['ListedImage'];
export type LogLine = Schemas['LogLine'];
export type Operation = Schemas['Operation'];
export type OperationKind = Schemas['OperationKind'];
export type Problem = Schemas['Problem'];
export type Registration = Schemas['Registration'];
export type Role = Schemas['Role'];
export type Session = Schemas['Session'];
export type Stage = Schemas['Stage'];
export type Terminal = Schemas['ListedTerminal'];
export type TerminalKind = Schemas['TerminalKind'];
export type Token = Schemas['Token'];
export type User = Schemas['User'];
export type Vm = Schemas['ListedVm'];
export type VmCounts = Schemas['VmCounts'];
export type VmState = Schemas['VmState'];

export type VmAction = Schemas['VmAction'];
