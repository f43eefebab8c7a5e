package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/internal/cli"
)

// reference returns what the commands say about themselves.
func reference() string {
	var b strings.Builder
	b.WriteString("\n## Commands\n\nEvery command has `--help`, and these flags:\n")
	root := cli.Commands()
	block(&b, "text", root.PersistentFlags().FlagUsages())
	for _, c := range root.Commands() {
		describe(&b, c)
	}
	return b.String()
}

func describe(b *strings.Builder, c *cobra.Command) {
	if !c.IsAvailableCommand() || c.Name() == "help" || c.Parent().Name() == "completion" {
		return
	}
	b.WriteString("\n### " + c.CommandPath() + "\n\n" + prose(c) + "\n")
	if !c.HasSubCommands() {
		block(b, "sh", c.UseLine())
	}
	flags := c.NonInheritedFlags()
	if help := flags.Lookup("help"); help != nil {
		help.Hidden = true
	}
	if text := flags.FlagUsages(); text != "" {
		if c.HasSubCommands() {
			b.WriteString("\nFlags of all commands below:\n")
		}
		block(b, "text", text)
	}
	if c.HasExample() {
		b.WriteString("\nFor example:\n")
		block(b, "sh", c.Example)
	}
	for _, sub := range c.Commands() {
		describe(b, sub)
	}
}

// prose returns what a command does.
func prose(c *cobra.Command) string {
	if c.Long == "" {
		return c.Short + "."
	}
	return strings.TrimSpace(c.Long)
}

func block(b *strings.Builder, language, text string) {
	b.WriteString("\n```" + language + "\n" + strings.TrimRight(text, "\n") + "\n```\n")
}
