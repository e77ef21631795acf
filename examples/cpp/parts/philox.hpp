// The random numbers of sampling, of which gpt_edge/generate/philox.py gives the same.
#pragma once

#include <cstdint>
#include <random>

namespace gpt_edge::detail {

// Philox4x64-10 with key (seed, 0) and counter 1, 2, ... (Salmon et al. 2011).
class Philox {
public:
    explicit Philox(std::uint64_t seed) : seed_(seed) {}

    std::uint64_t next() {
        if (n_left_ == 0) make_block();
        return block_[4 - n_left_--];
    }

private:
    static std::uint64_t high_product(std::uint64_t a, std::uint64_t b, std::uint64_t &low) {
        const std::uint64_t a0 = a & 0xFFFFFFFF, a1 = a >> 32, b0 = b & 0xFFFFFFFF, b1 = b >> 32;
        const std::uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
        const std::uint64_t other = a0 * b1 + (middle & 0xFFFFFFFF);
        low = a * b;
        return a1 * b1 + (middle >> 32) + (other >> 32);
    }

    void make_block() {
        std::uint64_t a = ++counter_, b = 0, c = 0, d = 0;
        std::uint64_t key_0 = seed_, key_1 = 0;
        for (int i = 0; i < 10; i++) {
            std::uint64_t low = 0, high_low = 0;
            const std::uint64_t low_high = high_product(0xD2E7470EE14C6C93, a, low);
            const std::uint64_t high_high = high_product(0xCA5A826395121157, c, high_low);
            a = high_high ^ b ^ key_0;
            b = high_low;
            c = low_high ^ d ^ key_1;
            d = low;
            key_0 += 0x9E3779B97F4A7C15;
            key_1 += 0xBB67AE8584CAA73B;
        }
        block_[0] = a, block_[1] = b, block_[2] = c, block_[3] = d;
        n_left_ = 4;
    }

    std::uint64_t seed_, counter_ = 0, block_[4] = {};
    int n_left_ = 0;
};

// A seed from the operating system.
inline std::uint64_t random_seed() {
    std::random_device device;
    return std::uint64_t{device()} << 32 | device();
}

}  // namespace gpt_edge::detail
