package cli

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

// acedataGroup returns the commands for Ace Data Cloud.
func (a *app) acedataGroup() *cobra.Command {
	c := group("acedata", "Work with credentials of Ace Data Cloud",
		a.credentialGroup(), a.applicationGroup(), a.platformTokenGroup())
	c.Long = `Work with credentials of Ace Data Cloud.

The token, a platform token, comes from --auth-file, --auth-prompt or
ACEDATACLOUD_PLATFORM_TOKEN, in this order; no file is looked for.`
	a.connectionFlags(c, false)
	return c
}

// offsetFlags are the flags of a list of Ace Data Cloud, beside its filters.
type offsetFlags struct {
	listFlags
	offset    int
	ordering  keywright.Ordering
	parallel  int
	anyHolder bool
}

func (l *offsetFlags) define(c *cobra.Command) {
	l.listFlags.define(c, "100")
	f := c.Flags()
	f.IntVar(&l.offset, "offset", 0, "skip the first `N` items")
	choiceVar(f, &l.ordering, "ordering", "", "list in `ORDER`: created_at, the oldest first, or -created_at", keywright.OldestFirst, keywright.NewestFirst)
	f.IntVar(&l.parallel, "parallel", 0, "ask for `N` pages at a time, at most 32")
	f.BoolVar(&l.anyHolder, "any-holder", false, "list those of every user; for superusers: anybody else is refused")
}

// options returns what the flags ask a call for.
func (l *offsetFlags) options(c *cobra.Command) []keywright.CallOption {
	var opts []keywright.CallOption
	if c.Flags().Changed("parallel") {
		opts = append(opts, keywright.WithParallel(l.parallel))
	}
	if l.anyHolder {
		opts = append(opts, keywright.WithAnyHolder())
	}
	return opts
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// parseUUID reads an id of Ace Data Cloud. What is none may be a token, and is
// not repeated.
func parseUUID[T ~string](s string) (T, error) {
	if !uuid.MatchString(s) {
		return "", usage("ID: want a UUID, such as 1a8ad3a7-1b7e-4b87-8a2e-5f1f6dd0a3f3")
	}
	return T(strings.ToLower(s)), nil
}
