package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completions settles what a shell offers to complete: the words of a flag that
// takes one of some, file names where there can be a file, and else nothing.
// The network is not asked.
func completions(c *cobra.Command) {
	if c.ValidArgsFunction == nil {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	offer := func(f *pflag.Flag) {
		words, directive := []string(nil), cobra.ShellCompDirectiveNoFileComp
		if v, ok := f.Value.(*value); ok {
			words = v.words
			if v.kind == "bool" {
				words = []string{"true", "false"}
			}
		}
		switch name, _ := pflag.UnquoteUsage(f); name {
		case "FILE":
			directive = cobra.ShellCompDirectiveDefault
		case "DIR":
			directive = cobra.ShellCompDirectiveFilterDirs
		}
		// The error says that somebody else has settled it already.
		_ = c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(words, directive))
	}
	c.PersistentFlags().VisitAll(offer)
	c.Flags().VisitAll(offer)
}

// texts returns words as strings.
func texts[T ~string](words []T) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return out
}
