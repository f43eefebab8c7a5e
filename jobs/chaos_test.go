package jobs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Three workers on PostgreSQL are killed and started again, any of them at any
// time, while forty keys rotate: all are rotated, each once.
func TestWorkersKilled(t *testing.T) {
	t.Parallel()
	testWorkersKilled(t, 10*time.Second)
}

// The same for minutes.
func TestWorkersKilledLong(t *testing.T) {
	soak(t)
	t.Parallel()
	testWorkersKilled(t, 2*time.Minute)
}

func testWorkersKilled(t *testing.T, lasts time.Duration) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KEYWRIGHT_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("KEYWRIGHT_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := newTroupe(t, postgresAt(t))
	c.Concurrency = 3 // so that there is something to kill for a while
	const keys = 40
	for i := range keys {
		c.add(t, strategies[[...]int{0, 2, 0, 2, 1, 3}[i%6]], fmt.Sprintf("w%d", i%3+1))
	}
	names := []string{"w1", "w2", "w3"}
	workers := make([]*child, len(names))
	workers[0] = c.first(t)
	workers[0].until("begun") // else some would never be
	for i := 1; i < len(names); i++ {
		workers[i] = c.next(t, names[i])
	}
	kills := 0
	for end := time.Now().Add(lasts); time.Now().Before(end); kills++ {
		// A kill at any time is the point: nothing is waited for.
		time.Sleep(100*time.Millisecond + time.Duration(random.Int64N(int64(700*time.Millisecond))))
		i := random.IntN(len(workers))
		workers[i].kill()
		workers[i] = c.next(t, names[i])
	}
	st := c.d.open(t)
	over := func() (n int) {
		rows, err := st.List(t.Context())
		require.NoError(t, err)
		for _, row := range rows {
			if row.LastState == "DONE" {
				n++
			}
		}
		return n
	}
	killed, early := time.Now(), over()
	require.Eventually(t, func() bool { return over() == keys }, 2*time.Minute, 100*time.Millisecond)
	t.Logf("%d kills, %d of %d rotations over by then, all %s later", kills, early, keys, time.Since(killed).Round(time.Millisecond))
	for _, p := range workers {
		p.stop()
	}
	c.over(t)
}
