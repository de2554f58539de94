/* Lanes of reads, one for each device: order, turns, and places that no other device can take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include "io/lanes.h"

enum { N_READS = 200, N_DEVICES = 12 };

static sl_file files[N_DEVICES];
static sl_read reads[N_READS];

static int set_up(void **state)
{
    (void)state;
    for (uint32_t i_device = 0; i_device < N_DEVICES; i_device++) {
        files[i_device] = (sl_file){.identity = {.device = 1000 + 7 * i_device}};
    }
    return 0;
}

/* Read number i of the test, of a file on a device. */
static sl_read *read_of(uint32_t i_read, uint32_t device)
{
    reads[i_read] = (sl_read){.file = &files[device]};
    return &reads[i_read];
}

/* Start the next read and return its number, or -1 when none may start. */
static int start(sl_lanes *lanes)
{
    sl_lane *lane = sl_lanes_next(lanes);
    if (lane == NULL) {
        return -1;
    }
    lane->n_in_flight++;
    return (int)(sl_lane_take(lane) - reads);
}

static uint32_t start_all(sl_lanes *lanes, uint32_t n_places)
{
    uint32_t n_started = 0;
    while (n_started < n_places && start(lanes) >= 0) {
        n_started++;
    }
    return n_started;
}

static void one_device_has_every_place_and_its_order(void **state)
{
    (void)state;
    sl_lanes lanes;
    sl_lanes_init(&lanes, 5);
    assert_null(sl_lanes_next(&lanes));
    assert_true(sl_lanes_are_empty(&lanes));
    for (uint32_t i_read = 0; i_read < 20; i_read++) {
        sl_lanes_add(&lanes, read_of(i_read, 0));
    }
    for (int i_read = 0; i_read < 5; i_read++) {
        assert_int_equal(start(&lanes), i_read);
    }
    assert_int_equal(start(&lanes), -1);
    for (int i_read = 5; i_read < 20; i_read++) {
        assert_false(sl_lanes_are_empty(&lanes));
        lanes.lanes[0].n_in_flight--;
        assert_int_equal(start(&lanes), i_read);
    }
    assert_true(sl_lanes_are_empty(&lanes));
}

static void devices_take_turns(void **state)
{
    (void)state;
    sl_lanes lanes;
    sl_lanes_init(&lanes, 100);
    for (uint32_t i_read = 0; i_read < 4; i_read++) {
        sl_lanes_add(&lanes, read_of(i_read, 0));
    }
    for (uint32_t i_read = 4; i_read < 6; i_read++) {
        sl_lanes_add(&lanes, read_of(i_read, 1));
    }
    static const int order[] = {0, 4, 1, 5, 2, 3, -1};
    for (size_t i_place = 0; i_place < sizeof order / sizeof order[0]; i_place++) {
        assert_int_equal(start(&lanes), order[i_place]);
    }
}

static void files_of_one_device_share_a_lane(void **state)
{
    (void)state;
    sl_lanes lanes;
    sl_lanes_init(&lanes, 4);
    files[1].identity.device = files[0].identity.device;
    for (uint32_t i_read = 0; i_read < 6; i_read++) {
        sl_lanes_add(&lanes, read_of(i_read, i_read % 2));
    }
    assert_int_equal(lanes.n_lanes, 1);
    for (int i_read = 0; i_read < 4; i_read++) {
        assert_int_equal(start(&lanes), i_read);
    }
}

/* Half of the places are divided among the devices and kept: nobody else gets them, however many it could use. */
static void places_of_an_idle_device_are_kept_free(void **state)
{
    (void)state;
    static const uint32_t expected[][3] = {
        /* places, devices, how many the only one that reads may have */
        {64, 1, 64}, {64, 2, 48}, {64, 4, 40}, {64, 8, 36}, {8, 2, 6},
        {8, 4, 5},   {4, 2, 3},   {2, 2, 1},   {3, 3, 1},   {1, 2, 1},
    };
    for (size_t i_case = 0; i_case < sizeof expected / sizeof expected[0]; i_case++) {
        sl_lanes lanes;
        sl_lanes_init(&lanes, expected[i_case][0]);
        for (uint32_t device = 0; device < expected[i_case][1]; device++) {
            (void)sl_lanes_of(&lanes, read_of(0, device));
        }
        for (uint32_t i_read = 0; i_read < 100; i_read++) {
            sl_lanes_add(&lanes, read_of(i_read, 0));
        }
        assert_int_equal(start_all(&lanes, expected[i_case][0]), expected[i_case][2]);
    }
}

static void devices_that_do_not_answer_leave_the_last_one_its_places(void **state)
{
    (void)state;
    enum { CAPACITY = 64, KEPT = CAPACITY / (2 * SL_MAX_LANES) };
    sl_lanes lanes;
    sl_lanes_init(&lanes, CAPACITY);
    for (uint32_t device = 0; device < SL_MAX_LANES; device++) {
        (void)sl_lanes_of(&lanes, read_of(0, device));
    }
    for (uint32_t i_read = 0; i_read < 140; i_read++) {
        sl_lanes_add(&lanes, read_of(i_read, i_read % (SL_MAX_LANES - 1)));
    }
    assert_int_equal(start_all(&lanes, CAPACITY), CAPACITY - KEPT);
    for (uint32_t i_read = 140; i_read < 150; i_read++) {
        sl_lanes_add(&lanes, read_of(i_read, SL_MAX_LANES - 1));
    }
    for (int i_read = 140; i_read < 140 + KEPT; i_read++) {
        assert_int_equal(start(&lanes), i_read);
    }
    assert_int_equal(start(&lanes), -1);
}

static void more_devices_than_lanes_share_the_last(void **state)
{
    (void)state;
    sl_lanes lanes;
    sl_lanes_init(&lanes, 100);
    for (uint32_t i_read = 0; i_read < 4 * N_DEVICES; i_read++) {
        sl_lanes_add(&lanes, read_of(i_read, i_read % N_DEVICES));
    }
    assert_int_equal(lanes.n_lanes, SL_MAX_LANES);
    assert_ptr_equal(sl_lanes_of(&lanes, read_of(N_READS - 1, N_DEVICES - 1)), &lanes.lanes[SL_MAX_LANES - 1]);
    bool started[4 * N_DEVICES] = {false};
    int last_of_last_lane = -1;
    for (int i_read = start(&lanes); i_read >= 0; i_read = start(&lanes)) {
        assert_false(started[i_read]);
        started[i_read] = true;
        if (i_read % N_DEVICES >= SL_MAX_LANES - 1) {
            assert_true(i_read > last_of_last_lane);
            last_of_last_lane = i_read;
        }
    }
    for (uint32_t i_read = 0; i_read < 4 * N_DEVICES; i_read++) {
        assert_true(started[i_read]);
    }
}

#define LANE_TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LANE_TEST(one_device_has_every_place_and_its_order),
        LANE_TEST(devices_take_turns),
        LANE_TEST(files_of_one_device_share_a_lane),
        LANE_TEST(places_of_an_idle_device_are_kept_free),
        LANE_TEST(devices_that_do_not_answer_leave_the_last_one_its_places),
        LANE_TEST(more_devices_than_lanes_share_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
