package jobs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation/jobfile"
)

// What the manual shows of a job file is one.
func TestManual(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../docs/jobs.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(manual, -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		f, err := jobfile.Parse(filepath.Join(t.TempDir(), "keywright.yaml"), block[1], FileOptions()...)
		require.NoError(t, err)
		require.NotEmpty(t, f.Jobs)
	}
}

// Jobs of a file have its schedules and owners; one that cannot be made says why.
func TestFromFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ricloud.token"), []byte("0123456789abcdef\n"), 0o600))
	text := []byte(`
version: 1
ricloud: {url: "http://127.0.0.1:1", token_file: ricloud.token}
acedata: {token_env: ACEDATA_TOKEN}
schedule: {every: 30d}
jobs:
  - {name: billing, strategy: ricloud-paired, keys: [1, 2], sinks: [{type: file, path: billing}]}
  - {name: search, strategy: ricloud-overlap, key: 3, owner: w1, schedule: {before_expiry: 7d}, sinks: [{type: file, path: search}]}
  - {name: byhand, strategy: ricloud-paired, keys: [4, 5], schedule: never, sinks: [{type: file, path: byhand}]}
  - {name: gateway, strategy: acedata-swap, credential: 5f0f3c2e-8f55-4c1b-9d7e-1a2b3c4d5e6f, sinks: [{type: file, path: gateway}], verify: {command: [./not-there]}}
`)
	f, err := jobfile.Parse(filepath.Join(dir, "keywright.yaml"), text, FileOptions()...)
	require.NoError(t, err)
	all := slices.Collect(FromFile(f))
	require.Len(t, all, 4)
	require.Equal(t, []string{"billing", "search", "byhand", "gateway"}, []string{all[0].Name, all[1].Name, all[2].Name, all[3].Name})
	require.Equal(t, "30d", all[0].Schedule.Every)
	require.Equal(t, "30d", all[1].Schedule.Every)
	require.Equal(t, "7d", all[1].Schedule.BeforeExpiry)
	require.Nil(t, all[2].Schedule)
	require.Equal(t, []string{"", "w1", "", ""}, []string{all[0].Owner, all[1].Owner, all[2].Owner, all[3].Owner})
	for _, job := range all[:3] {
		require.NoError(t, job.Err)
	}
	require.ErrorContains(t, all[3].Err, "not there")
	require.NotNil(t, all[3].Schedule, "it is shown with its schedule")

	_, err = jobfile.Parse(filepath.Join(dir, "keywright.yaml"), []byte(`{"version": 1, "jobs": [
		{"name": "billing", "strategy": "ricloud-paired", "keys": [1, 2], "sinks": [{"type": "file", "path": "x"}], "schedule": {"cron": "61 4 1 * *"}}]}`), FileOptions()...)
	require.ErrorContains(t, err, "minute is not understood")
	var bad *jobfile.Error
	require.ErrorAs(t, err, &bad)
	require.Equal(t, 2, bad.Problems[0].Line)
}
