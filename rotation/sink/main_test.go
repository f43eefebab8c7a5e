package sink_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

// childVariable names what this test binary does instead of testing, for the
// tests that need another process.
const childVariable = "KEYWRIGHT_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "dotenv" {
		if err := rotateDotenv(os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
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

// rotateDotenv replaces a variable so many times, and fails if anybody else
// has changed it.
func rotateDotenv(path, variable, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	ctx, s := context.Background(), sink.Dotenv(path, variable)
	for i := range n {
		previous, err := s.Read(ctx)
		if err != nil {
			return err
		}
		if want := keywright.NewSecret(fmt.Sprint(variable, "-", i)); !previous.Token.Equal(want) {
			return fmt.Errorf("%s was lost before update %d", variable, i)
		}
		if err := s.CompareAndWrite(ctx, previous, keywright.NewSecret(fmt.Sprint(variable, "-", i+1))); err != nil {
			return err
		}
	}
	return nil
}
