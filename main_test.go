package keywright_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind, nor a connection, which has goroutines.
// Most tests wait for a time-out and cost nothing meanwhile, so that many may
// run at once on a small machine.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
