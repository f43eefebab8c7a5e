package cli

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

// version is what is printed of the program.
type version struct {
	Version   string     `json:"version"`
	GoVersion string     `json:"go_version"`
	Revision  *string    `json:"revision"` // of the source; nil if the build does not know
	Time      *time.Time `json:"time"`     // of the revision
	Modified  *bool      `json:"modified"` // whether the source was not that of the revision
	Platform  string     `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of the program",
		Example: "keywright version\nkeywright version --output json",
		RunE:    func(*cobra.Command, []string) error { return a.print(versionOf(debug.ReadBuildInfo()), nil) },
	}
}

// versionOf returns what a build says about itself.
func versionOf(info *debug.BuildInfo, ok bool) *version {
	v := &version{Version: keywright.Version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = &s.Value
		case "vcs.time":
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				v.Time = &t
			}
		case "vcs.modified":
			modified := s.Value == "true"
			v.Modified = &modified
		}
	}
	return v
}
