package rotator

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of the program", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.out, "%s %s, %s, %s/%s\n", name, keywright.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
