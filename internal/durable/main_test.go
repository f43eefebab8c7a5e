package durable_test

import (
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// childVariable names what this test binary does instead of testing, for the
// tests that need another process.
const childVariable = "KEYWRIGHT_TEST_CHILD"

func TestMain(m *testing.M) {
	if run, ok := children[os.Getenv(childVariable)]; ok {
		os.Exit(run(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// child is this test binary doing something else.
func child(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), childVariable+"="+what, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// pick returns the greater number when there is time for it.
func pick(quick, soak int) int {
	if os.Getenv("KEYWRIGHT_SOAK") == "1" {
		return soak
	}
	return quick
}
