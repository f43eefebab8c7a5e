package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestDoctorClock(t *testing.T) {
	t.Parallel()
	d := new(doctor)
	d.clock(time.Date(1970, 1, 1, 0, 0, 1, 0, time.UTC))
	d.clock(time.Date(2027, 1, 31, 9, 0, 0, 0, time.UTC))
	assert.Equal(t, []finding{
		{check: "system clock", result: resultWrong, found: "system clock is before 2020; webhook times cannot be checked", mend: "set the clock, or let NTP do it", code: exitFailed},
		{check: "system clock", result: resultOK, found: "2027-01-31T09:00:00Z"},
	}, d.findings)
}
