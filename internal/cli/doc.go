// Package cli is the command line of keywright: its commands, what they print
// and what they exit with. The program in cmd/keywright is nothing but a call
// of [Main].
//
// A command is a function that returns a cobra command: one file per resource
// of the SDK, one per other group. What they share is in files of its own:
//
//	cli.go         the root command, signals, streams
//	exit.go        exit codes, and what is said about an error
//	flags.go       values of flags, parameters with three states
//	resource.go    the shapes that commands for resources have: list, get, …
//	change.go      calls that change something: asking first, and looking up lost answers
//	issued.go      where a new secret goes, so that it cannot be lost
//	output.go      formats; record.go and table.go make what they print
//	terminal.go    what is different on a terminal
package cli
