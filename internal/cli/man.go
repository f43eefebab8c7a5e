package cli

import (
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/keywright/keywright"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages", Args: arguments("DIR"),
		Long: `Write a manual page for every command into a directory, which is made if there
is none. Files of the same names are replaced.

The pages bear the date in SOURCE_DATE_EPOCH, else that of the revision that the
program was built from, else that of the program's file.`,
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		Example:           "keywright man ~/.local/share/man/man1",
		RunE: func(c *cobra.Command, args []string) error {
			date, err := buildDate()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			err = doc.GenManTree(c.Root(), &doc.GenManHeader{
				Section: "1", Date: &date, Source: "keywright " + keywright.Version, Manual: "keywright",
			}, args[0])
			if err == nil {
				a.note("the manual pages are in %s", args[0])
			}
			return err
		},
	}
}

// Commands returns the tree of commands, for documents about them.
func Commands() *cobra.Command {
	return (&app{in: os.Stdin, out: os.Stdout, err: os.Stderr, format: formatTable}).root()
}

// buildDate returns a date that is the same whenever the same program runs.
func buildDate() (time.Time, error) {
	if text, ok := os.LookupEnv("SOURCE_DATE_EPOCH"); ok {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return time.Time{}, usage("SOURCE_DATE_EPOCH: want seconds since 1970")
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	if v := versionOf(debug.ReadBuildInfo()); v.Time != nil {
		return *v.Time, nil
	}
	self, err := os.Executable()
	if err != nil {
		return time.Time{}, err
	}
	info, err := os.Stat(self)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime().UTC(), nil
}
