package jobfile_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/jobfile"
)

// fleet is a file of many jobs.
func fleet(jobs int) string {
	var b strings.Builder
	b.WriteString("version: 1\nricloud: {token_env: SOME}\njobs:\n")
	for i := range jobs {
		fmt.Fprintf(&b, "- name: customer-%05d\n  strategy: ricloud-paired\n  keys: [%d, %d]\n  sinks:\n  - {type: file, path: tokens/%05d}\n"+
			"  - {type: vault, address: \"https://vault.example\", path: customers/%05d, token_file: vault.token}\n  verify: {url: https://api.example/me}\n", i, 2*i+1, 2*i+2, i, i)
	}
	return b.String()
}

// BenchmarkParse_fleet tells how much memory a daemon with 10,000 jobs keeps.
func BenchmarkParse_fleet(b *testing.B) {
	text := []byte(fleet(10_000))
	kept := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	_, err := jobfile.Parse("x.yaml", []byte(paired(""))) // the schema is kept too, once
	require.NoError(b, err)
	before := kept()
	var f *jobfile.File
	for b.Loop() {
		f, err = jobfile.Parse("x.yaml", text, jobfile.WithClientOptions(keywright.WithoutEnvironment()))
		require.NoError(b, err)
	}
	b.ReportMetric(kept()-before, "MB-kept")
	runtime.KeepAlive(f)
}
