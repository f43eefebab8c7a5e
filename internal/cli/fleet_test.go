package cli

import (
	"strconv"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFleetNext checks what a fleet that is not done says to run.
func TestFleetNext(t *testing.T) {
	t.Setenv(envJobFile, "")
	many := func(prefix string, n int) []string {
		names := make([]string, n)
		for i := range names {
			names[i] = prefix + strconv.Itoa(i)
		}
		return names
	}
	for name, c := range map[string]struct {
		args            []string
		all             bool
		jobs            int
		underWay, again []string
		want            []string
	}{
		"all, campaign": {[]string{"--campaign", "my run"}, true, 9, []string{"a"}, []string{"b"}, []string{"go on: keywright rotate run --all --campaign 'my run'"}},
		"some, campaign": {[]string{"--campaign", "x", "--rate", "2.5"}, false, 3, []string{"a"}, []string{"b"}, []string{
			"go on: keywright rotate run b a --campaign x --rate 2.5",
		}},
		"no campaign": {[]string{"--canaries", "0"}, false, 3, []string{"a"}, []string{"b"}, []string{
			"go on with what is under way: keywright rotate resume a", "then the rest: keywright rotate run b --canaries 0",
		}},
		"under way alone":    {nil, true, 9, []string{"a", "b"}, nil, []string{"go on with what is under way: keywright rotate resume a b"}},
		"all are under way":  {nil, true, 2, []string{"a", "b"}, nil, []string{"go on with what is under way: keywright rotate resume --all"}},
		"many are under way": {nil, false, 30, many("a", 20), nil, []string{"go on with what is under way: keywright rotate resume --all"}},
		"many are left":      {nil, true, 30, nil, many("b", 20), []string{"run the rest by name; with --campaign it would be known what is done"}},
	} {
		t.Run(name, func(t *testing.T) {
			var fl fleetFlags
			cmd := &cobra.Command{}
			fl.define(cmd)
			require.NoError(t, cmd.ParseFlags(c.args))
			fr := &fleetRun{r: &rotator{a: &app{}, all: c.all}, underWay: c.underWay}
			assert.Equal(t, c.want, fr.next(&fl, c.jobs, c.again))
		})
	}
}
