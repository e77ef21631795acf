// How many threads to use: the physical cores that this process may run on, less what its control
// group holds back, at most 16. As gpt_edge/system/threads.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace gpt_edge::detail {

inline constexpr int MAX_THREADS = 256;

#ifdef __linux__
// Cores behind the CPUs of this process: two hyperthreads share one set of arithmetic units.
inline int count_cores() {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return 0;
    std::set<std::string> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &cpus)) continue;
        std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                           "/topology/thread_siblings_list");
        std::string siblings;
        if (!std::getline(file, siblings)) return CPU_COUNT(&cpus);
        cores.insert(siblings);
    }
    return static_cast<int>(cores.size());
}

// Quota by period, infinite where there is no limit.
inline double ratio_of(std::istream &quota, std::istream &period) {
    double one = 0, other = 0;
    if (quota >> one && period >> other && one > 0 && other > 0) return one / other;
    return std::numeric_limits<double>::infinity();
}

// The CPU time per second that the control groups of this process allow, those above it included.
inline double group_cpus() {
    double limit = std::numeric_limits<double>::infinity();
    std::ifstream membership("/proc/self/cgroup");
    for (std::string line; std::getline(membership, line);) {
        const std::size_t colon = line.find(':'), second = line.find(':', colon + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(colon + 1, second - colon - 1);
        const bool is_first_version = !controllers.empty();  // of control groups
        if (is_first_version && ("," + controllers + ",").find(",cpu,") == std::string::npos)
            continue;
        const std::string top = "/sys/fs/cgroup" + (is_first_version ? "/" + controllers : "");
        for (std::string group = line.substr(second + 1);; group.erase(group.rfind('/'))) {
            if (is_first_version) {
                std::ifstream quota(top + group + "/cpu.cfs_quota_us");
                std::ifstream period(top + group + "/cpu.cfs_period_us");
                limit = std::min(limit, ratio_of(quota, period));
            } else {
                std::ifstream both(top + group + "/cpu.max");
                limit = std::min(limit, ratio_of(both, both));
            }
            if (group.rfind('/') == std::string::npos) break;
        }
    }
    return limit;
}
#else
inline int count_cores() { return static_cast<int>(std::thread::hardware_concurrency()); }
inline double group_cpus() { return std::numeric_limits<double>::infinity(); }
#endif

inline int default_threads() {
    const double limit = std::floor(std::min({double(count_cores()), group_cpus(), 16.0}));
    return std::max(1, static_cast<int>(limit));
}

}  // namespace gpt_edge::detail
